"""Which pieces an audit asks for, and when the next audit of a placement is due. Pure."""

from __future__ import annotations

import random
from typing import Final

from ..policy import AuditPolicy
from .judge import Verdict

JITTER: Final = 0.25
"""Share of the interval by which audits of healthy placements move apart."""


def choose_pieces(total: int, count: int, rng: random.Random) -> list[int]:
    """`count` distinct pieces of `total`, unpredictable to the provider (give a SystemRandom)."""
    return sorted(rng.sample(range(total), min(count, total)))


def next_due(
    last: float | None, verdict: Verdict | None, policy: AuditPolicy, jitter: float = 0.0, *, now: float
) -> float:
    """UTC seconds when the next audit is due; 0 when there was none yet, or one in the future: the clock was wrong.

    A suspect or unknown placement is asked again after `retry`, a healthy one after `interval`, or up to a quarter
    sooner by `jitter` (0 to 1): placements that were audited together do not stay together.
    """
    if last is None or verdict is None or last > now:
        return 0.0
    return last + (policy.interval * (1 - JITTER * jitter) if verdict is Verdict.HEALTHY else policy.retry)
