"""Bloom filters: nothing that went in is missed, and of what did not, little is taken for it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.storage import bloom
from clew.storage.bloom import TEXT_BYTES_MAX, bloom_filter, may_hold

TEXTS = st.lists(st.text().filter(lambda text: len(text.encode()) <= TEXT_BYTES_MAX), unique=True, max_size=50)


def filters(*of: list[str]) -> pa.Array:
    return pa.array([bloom_filter(pa.array(texts, pa.string())) for texts in of], pa.binary())


@given(st.lists(TEXTS, min_size=1, max_size=5), st.integers(0, 2))
def test_each_text_is_known_to_its_filter(of: list[list[str]], skipped: int) -> None:
    """Whatever the texts are, and wherever in its array a filter lies."""
    some = of[skipped:]
    made = filters(*of).slice(skipped)
    for number, texts in enumerate(some):
        assert all(may_hold(made, text)[number] for text in texts)


def test_a_filter_of_nothing_knows_nothing() -> None:
    """Not even the empty text."""
    assert may_hold(filters([], [""]), "").tolist() == [False, True]


def test_few_other_texts_are_taken_for_known() -> None:
    """One in a hundred, of texts that differ little from those."""
    made = filters(*([f"user-{user}" for user in range(first, first + 5000)] for first in range(0, 50_000, 5000)))
    known = np.array([may_hold(made, f"user-{user}") for user in range(60_000, 61_000)])
    assert 0 < known.mean() < 0.015


def test_texts_beyond_those_hashed_at_once_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The filter is the same however few are."""
    texts = pa.array([f"text {number}" for number in range(100)])
    whole = bloom_filter(texts)
    monkeypatch.setattr(bloom, "_TEXTS_AT_ONCE", 7)
    assert bloom_filter(texts) == whole


def test_a_text_of_the_longest_kind_is_known() -> None:
    """TEXT_BYTES_MAX bytes, and what differs only in the last one is not."""
    text = "x" * (TEXT_BYTES_MAX - 1)
    made = filters([f"{text}a"])
    assert may_hold(made, f"{text}a").tolist() == [True]
    assert may_hold(made, f"{text}b").tolist() == [False]


def test_stored_filters_stay_readable() -> None:
    """What one release of clew writes, the next one reads: these bytes are in users' files."""
    assert bloom_filter(pa.array(["engineer", "prüfer", ""])) == bytes.fromhex("7fce3087")
