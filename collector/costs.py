"""What tokens cost, by the price list of `genai-prices`."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from math import inf, nan
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
    at = pa.array(rows)
    models = model.take(at).dictionary_encode()
    names = models.dictionary.to_pylist()
    counts = [pc.fill_null(tokens.take(at), 0).to_numpy() for tokens in (input_tokens, output_tokens, cached)]
    rates = np.array([_base_rates(name) for name in names]).reshape(-1, 3)[models.indices.to_numpy()]
    costs = np.full(len(model), np.nan)
    costs[rows] = (counts[0] * rates[:, 0] + counts[1] * rates[:, 1]) / _TOKENS_PER_MTOK
    unlike_most = (counts[2] != 0) | (counts[0] > rates[:, 2])
    for call in np.flatnonzero(unlike_most).tolist():
        costs[rows[call]] = _by_the_list(names[models.indices[call].as_py()], *(int(tokens[call]) for tokens in counts))
    return pa.array(costs, mask=np.isnan(costs))


class _BaseRates(NamedTuple):
    """Dollars per million tokens, for calls of up to so many input tokens without cached ones."""

    input_mtok: float
    output_mtok: float
    up_to_input_tokens: float


_UNPRICED = _BaseRates(nan, nan, inf)
_BY_THE_LIST_ONLY = _BaseRates(nan, nan, -inf)


@lru_cache(maxsize=4096)
def _base_rates(model: str) -> _BaseRates:
    """Looking a call up in the list takes a fifth of a millisecond; nearly all calls are at a model's base rates."""
    try:
        price = calc_price(Usage(input_tokens=1, output_tokens=1), model_ref=model).model_price
    except LookupError:
        return _UNPRICED
    if price.input_mtok is None or price.output_mtok is None:
        return _BY_THE_LIST_ONLY
    (input_mtok, first), (output_mtok, second) = _base(price.input_mtok), _base(price.output_mtok)
    return _BaseRates(input_mtok, output_mtok, min(first, second))


def _base(price: Decimal | TieredPrices) -> tuple[float, float]:
    """The price of the first tier, and up to how many input tokens it holds."""
    if isinstance(price, Decimal):
        return float(price), inf
    return float(price.base), min((tier.start for tier in price.tiers), default=inf)


@lru_cache(maxsize=4096)
def _by_the_list(model: str, input_tokens: int, output_tokens: int, cached: int) -> float:
    """Not a number where the list has no price for such a call."""
    if _base_rates(model) is _UNPRICED:
        return nan
    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens, cache_read_tokens=cached or None)
    try:
        return float(calc_price(usage, model_ref=model).total_price)
    except (LookupError, ValueError):
        return nan
