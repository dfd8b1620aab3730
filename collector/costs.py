"""What tokens cost, by the price list of `genai-prices`."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from math import inf
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from genai_prices import Usage, calc_price
from genai_prices.types import TieredPrices

_TOKENS_PER_MTOK = 1_000_000


def estimated_costs(model: pa.Array, input_tokens: pa.Array, output_tokens: pa.Array, cached: pa.Array) -> pa.Array:
    """US dollars per row, as doubles; null where the model has no known price or no token is counted. Cached tokens
    are part of the input tokens."""
    known = pc.and_(model.is_valid(), pc.or_(input_tokens.is_valid(), output_tokens.is_valid()))
    rows = np.flatnonzero(known.to_numpy(zero_copy_only=False))
    costs: list[float | None] = [None] * len(model)
    at = pa.array(rows)
    counts = (pc.fill_null(tokens.take(at), 0).to_pylist() for tokens in (input_tokens, output_tokens, cached))
    for row, name, *tokens in zip(rows.tolist(), model.take(at).to_pylist(), *counts, strict=True):
        costs[row] = _cost(name, *tokens)
    return pa.array(costs, pa.float64())


def _cost(model: str, input_tokens: int, output_tokens: int, cached: int) -> float | None:
    rates = _base_rates(model)
    if rates is not None and not cached and input_tokens <= rates.up_to_input_tokens:
        return (input_tokens * rates.input_mtok + output_tokens * rates.output_mtok) / _TOKENS_PER_MTOK
    return _by_the_list(model, input_tokens, output_tokens, cached)


class _BaseRates(NamedTuple):
    """Dollars per million tokens, for calls of up to so many input tokens."""

    input_mtok: float
    output_mtok: float
    up_to_input_tokens: float


@lru_cache(maxsize=4096)
def _base_rates(model: str) -> _BaseRates | None:
    """Looking a call up in the list takes a fifth of a millisecond; nearly all calls are at a model's base rates."""
    try:
        price = calc_price(Usage(input_tokens=1, output_tokens=1), model_ref=model).model_price
    except LookupError:
        return None
    if price.input_mtok is None or price.output_mtok is None:
        return None
    (input_mtok, first), (output_mtok, second) = _base(price.input_mtok), _base(price.output_mtok)
    return _BaseRates(input_mtok, output_mtok, min(first, second))


def _base(price: Decimal | TieredPrices) -> tuple[float, float]:
    """The price of the first tier, and up to how many input tokens it holds."""
    if isinstance(price, Decimal):
        return float(price), inf
    return float(price.base), min((tier.start for tier in price.tiers), default=inf)


@lru_cache(maxsize=4096)
def _by_the_list(model: str, input_tokens: int, output_tokens: int, cached: int) -> float | None:
    if not _is_priced(model):
        return None
    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens, cache_read_tokens=cached or None)
    try:
        return float(calc_price(usage, model_ref=model).total_price)
    except (LookupError, ValueError):
        return None


@lru_cache(maxsize=4096)
def _is_priced(model: str) -> bool:
    try:
        calc_price(Usage(input_tokens=1), model_ref=model)
    except LookupError:
        return False
    return True
