"""How the text of a question is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.query.parameters import EventCursor, RowCursor, RunIdRange, parse_instant

nanos = st.integers(0, 2**63 - 1)
run_ids = st.uuids().filter(lambda run_id: run_id.int != 0)
event_ids = st.integers(-(2**63), 2**63 - 1).filter(bool)


@pytest.mark.parametrize(
    ("text", "unix_nano"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.000000001Z", 1_000_000_001),
        ("2026-01-31T12:00:00.5+02:00", 1_769_853_600_500_000_000),
        ("2026-01-31t10:00:00z", 1_769_853_600_000_000_000),
        ("2026-01-31", 1_769_817_600_000_000_000),
        ("0", 0),
        ("1769853600000000001", 1_769_853_600_000_000_001),
        ("2026-01-31T12:00:00 02:00", 1_769_853_600_000_000_000),
        ("1969-12-31T23:59:59Z", 0),
        ("9999-12-31T23:59:59Z", 2**63 - 1),
    ],
)
def test_moments(text: str, unix_nano: int) -> None:
    """RFC 3339 and whole nanoseconds are read to the nanosecond; a date is its first moment in UTC; an unescaped plus
    sign and times out of range are read too."""
    assert parse_instant(text) == unix_nano


@given(
    st.datetimes(min_value=datetime(1970, 1, 3), max_value=datetime(2200, 1, 1)),
    st.integers(-24 * 60 + 1, 24 * 60 - 1),
)
def test_moments_in_any_zone(local: datetime, offset_minutes: int) -> None:
    """What `isoformat` writes is read back exactly."""
    moment = local.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))
    since_epoch = moment - datetime.fromtimestamp(0, UTC)

    assert parse_instant(moment.isoformat()) == since_epoch // timedelta(microseconds=1) * 1000


@pytest.mark.parametrize(
    ("text", "ago_s"), [("-90s", 90), ("-5m", 300), ("-1h", 3600), ("-7d", 604_800), ("-2w", 1_209_600)]
)
def test_moments_before_now(text: str, ago_s: int) -> None:
    """A time before now is reckoned from the moment of asking."""
    before = time.time_ns()
    read = parse_instant(text)

    assert before <= read + ago_s * 10**9 <= time.time_ns()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1h",
        "-1y",
        "2026",
        "1769853600",
        "1769853600000",
        "2026-02-30",
        "2026-02-30T00:00:00Z",
        "-",
        "1e9",
        "٣",
    ],
)
def test_what_is_no_moment(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match=r"\S"):
        parse_instant(text)


@given(run_ids, st.integers(1, 32))
def test_prefix_bounds_the_ids_that_begin_with_it(run_id: UUID, digits: int) -> None:
    """A prefix stands for the ids from all zeros to all f after it, dashes and case aside."""
    ids = RunIdRange.parse(str(run_id)[: digits + 4].upper())
    prefix = str(run_id)[: digits + 4].replace("-", "")

    assert ids.first <= run_id <= ids.last
    assert ids.first.hex.startswith(prefix)
    assert ids.last.hex.startswith(prefix)
    assert ids.last.int - ids.first.int == 16 ** (32 - len(prefix)) - 1


@given(nanos, event_ids, st.integers(0, 10**18 - 1), run_ids, st.text())
def test_cursors_come_back_as_they_went(time: int, event_id: int, number: int, run_id: UUID, name: str) -> None:
    """A cursor's text holds the whole key, and needs no escaping in a URL."""
    event = EventCursor(started_at_unix_nano=time, id=event_id)
    texts = [event.text()]

    assert EventCursor.parse(event.text()) == event
    for key, parse in ((number, RowCursor.numbered), (run_id, RowCursor.hex), (name, RowCursor.named)):
        cursor = RowCursor(time_unix_nano=time, key=key)
        assert parse(cursor.text()) == cursor
        texts.append(cursor.text())
    assert "".join(texts).replace("-", "").replace("_", "").isalnum()


@given(st.text())
def test_no_text_breaks_the_reading_of_cursors(text: str) -> None:
    """Text that is no cursor is refused as such, however odd."""
    for parse in (EventCursor.parse, RowCursor.numbered, RowCursor.hex, RowCursor.named):
        with pytest.raises(ValueError, match="cursor"):
            parse(text)


@pytest.mark.parametrize("parse", [RowCursor.numbered, RowCursor.hex])
def test_cursor_of_another_list_is_refused(parse: Callable[[str], RowCursor]) -> None:
    """A cursor whose key is of another kind is no cursor here."""
    with pytest.raises(ValueError, match="cursor"):
        parse(RowCursor(time_unix_nano=1, key="a name").text())


_RUN = "5b8efff798038103d269b633813fc60c"


@pytest.mark.parametrize(
    ("asked", "blamed"),
    [
        ({"since": "2", "until": "1"}, "since"),
        ({"since": "yesterday"}, "since"),
        ({"until": "-1"}, "until"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1e9"}, "limit"),
        ({"limit": "1000000000"}, "limit"),
        ({"cursor": "garbage"}, "cursor"),
        ({"cursor": "2147483648-x"}, "cursor"),
        ({"since": ["1", "2"]}, "since"),
        ({"limit": ["7", "7"]}, "limit"),
    ],
    ids=str,
)
def test_every_address_refuses_what_makes_no_sense(demo_server: Any, asked: dict[str, Any], blamed: str) -> None:
    """Whatever takes these parameters says 400 and names the one to blame; Jaeger's addresses say it as Jaeger does."""
    needed = {"a": _RUN, "b": _RUN, "path": "x"}
    with httpx.Client(base_url=demo_server.http_url, trust_env=False) as client:
        described = client.get("/openapi.json").json()["paths"]
        takes = {
            path: {parameter["name"] for parameter in methods["get"].get("parameters", ())}
            for path, methods in described.items()
            if "get" in methods and "jaeger" not in methods["get"].get("tags", ())
        }
        paths = [path for path, names in takes.items() if asked.keys() <= names]
        assert len(paths) >= 3
        for path in paths:
            given = {name: value for name, value in needed.items() if name in takes[path]} | asked
            answer = client.get(path.format(run_id=_RUN, node_id="n"), params=given)
            assert (answer.status_code, answer.json()["error"]["parameter"]) == (400, blamed), path


def test_nothing_can_have_started_before_it_did(demo_server: Any) -> None:
    """A time without length is allowed, and has nothing in it."""
    runs = httpx.get(f"{demo_server.http_url}/api/runs", params={"since": "7", "until": "7"})
    assert (runs.status_code, runs.json()["runs"]) == (200, [])
