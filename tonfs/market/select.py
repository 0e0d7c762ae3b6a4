"""Which providers to hire out of those that quoted. Pure and deterministic: equal inputs, equal choice."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from ..ids import ProviderKey
from .quote import Quote

NEUTRAL: Final = 1.0
"""Score of a provider nobody has experience with."""
WORST: Final = 0.01


def effective_price(quote: Quote, score: float) -> float:
    """Cost of a day, made dearer for a provider that failed before: half the score doubles the price."""
    return quote.per_day / max(WORST, score)


def select(
    quotes: Sequence[Quote],
    count: int,
    *,
    exclude: Collection[ProviderKey] = (),
    scores: Mapping[ProviderKey, float] | None = None,
) -> list[Quote]:
    """Up to `count` quotes of distinct providers, cheapest effective price first; then who asks less (small
    bags all cost the minimum bounty), longer span, key."""
    known = scores or {}
    best: dict[ProviderKey, Quote] = {}
    for quote in quotes:
        if quote.provider in exclude:
            continue
        held = best.get(quote.provider)
        if held is None or quote.per_day < held.per_day:
            best[quote.provider] = quote
    order = sorted(
        best.values(),
        key=lambda q: (effective_price(q, known.get(q.provider, NEUTRAL)), q.asked_rate, -q.span, q.provider),
    )
    return order[:count]
