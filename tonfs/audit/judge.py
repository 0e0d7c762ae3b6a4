"""The auditor's judgement on one placement, from what was seen. Pure; the rules stand in `judge`.

Two questions make an audit (design section 4): does the contract show a proof within its span, and does this very
provider hand out randomly chosen pieces whose hashes match? A path of hashes alone proves nothing about the data
(reference contracts 3.4). Unknown is never green, and our own troubles are never a provider's failure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from ..policy import AuditPolicy

LATE_PATIENCE: Final = 60.0
"""Seconds (of our clock) for which a late proof stays a suspicion, whatever chain time does meanwhile."""


class Verdict(StrEnum):
    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    SUSPECT = "suspect"
    FAILED = "failed"


class Outcome(StrEnum):
    """What one piece request brought. Mirrors the network room's PieceOutcome without importing it."""

    OK = "ok"
    WRONG = "wrong"
    SILENT = "silent"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class ChainView:
    """What the contract says about this provider. `None` fields in `Evidence.chain` mean the chain was not read."""

    listed: bool
    last_proof: int
    """UTC seconds of the last accepted proof; 0 before the first."""
    span: int
    now: int
    """Chain time when it was read."""
    payable: bool = True
    """The contract could pay for the proof all the time. If not, that it does not come is our own failure."""

    def proof_in_time(self, margin: float) -> bool:
        return self.listed and self.last_proof > 0 and self.now - self.last_proof <= self.span + margin


@dataclass(frozen=True)
class Evidence:
    """One audit: the contract's word, the pieces' outcomes, and whether anybody else could be reached."""

    chain: ChainView | None
    outcomes: Sequence[Outcome]
    bytes: int
    online: bool
    """Another provider answered meanwhile, so silence is this provider's, not ours."""
    suspect_for: float = math.inf
    """Seconds since the placement became suspect; 0 when it is not."""


@dataclass(frozen=True)
class Record:
    """What earlier audits left behind."""

    strikes: int = 0
    """Audits in a row that brought no data in time, or whose proof is late."""
    wrong: int = 0
    """Audits in a row that brought wrong data."""


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    record: Record
    reason: str


def judge(evidence: Evidence, before: Record, policy: AuditPolicy) -> Judgement:
    """Verdict and new record. Wrong data must be seen twice in a row, silence `policy.strikes` times."""
    if Outcome.WRONG in evidence.outcomes:
        after = Record(before.strikes, before.wrong + 1)
        if after.wrong >= 2:
            return Judgement(Verdict.FAILED, after, "served bytes that do not match the bag, twice in a row")
        return Judgement(Verdict.SUSPECT, after, "served bytes that do not match the bag")
    missing = [o for o in evidence.outcomes if o in (Outcome.SILENT, Outcome.UNREACHABLE)]
    if missing and not evidence.online:
        return Judgement(Verdict.UNKNOWN, before, "nobody answers: we may be offline")
    if missing:
        return _strike(before, policy, f"{missing[0]}: {len(missing)} of {len(evidence.outcomes)} pieces did not come")
    if evidence.chain is None:
        return Judgement(Verdict.UNKNOWN, before, "the chain could not be read")
    if not evidence.chain.listed:
        return Judgement(Verdict.UNKNOWN, before, "the contract does not list the provider (yet)")
    if not evidence.outcomes:
        return Judgement(Verdict.UNKNOWN, before, "no piece was asked for")
    if evidence.chain.last_proof == 0:
        return Judgement(Verdict.UNKNOWN, Record(), "data is there, the first proof is not on chain yet")
    if not evidence.chain.proof_in_time(policy.proof_margin):
        if not evidence.chain.payable:
            return Judgement(Verdict.UNKNOWN, before, "the proof is late, but the contract could not pay for it")
        judgement = _strike(before, policy, "the on-chain proof is late")
        if judgement.verdict is Verdict.FAILED and evidence.suspect_for < LATE_PATIENCE:
            return replace(judgement, verdict=Verdict.SUSPECT)
        return judgement
    return Judgement(Verdict.HEALTHY, Record(), "proof in time, pieces match")


def _strike(before: Record, policy: AuditPolicy, reason: str) -> Judgement:
    after = Record(before.strikes + 1, before.wrong)
    verdict = Verdict.FAILED if after.strikes >= policy.strikes else Verdict.SUSPECT
    return Judgement(verdict, after, reason)
