"""Challenges, judgements, evidence: does a provider still hold what it is paid for?"""

from __future__ import annotations

from .judge import ChainView, Evidence, Judgement, Outcome, Record, Verdict, judge
from .plan import choose_pieces, next_due

__all__ = [
    "ChainView",
    "Evidence",
    "Judgement",
    "Outcome",
    "Record",
    "Verdict",
    "choose_pieces",
    "judge",
    "next_due",
]
