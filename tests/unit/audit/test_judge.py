"""The auditor's judgement: unknown is never green, and our troubles are nobody else's failure."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonfs.audit import ChainView, Evidence, Outcome, Record, Verdict, choose_pieces, judge, next_due
from tonfs.policy import AuditPolicy

POLICY = AuditPolicy(interval=100.0, retry=10.0, strikes=3, proof_margin=60.0)
PROVED = ChainView(listed=True, last_proof=1000, span=500, now=1200)


def evidence(*outcomes: Outcome, chain: ChainView | None = PROVED, online: bool = True) -> Evidence:
    return Evidence(chain=chain, outcomes=outcomes, bytes=131072 * len(outcomes), online=online)


def test_pieces_that_match_and_a_proof_in_time_are_healthy() -> None:
    judgement = judge(evidence(Outcome.OK, Outcome.OK), Record(2, 1), POLICY)
    assert judgement.verdict is Verdict.HEALTHY
    assert judgement.record == Record()


def test_silence_becomes_failure_only_after_the_agreed_number_of_strikes() -> None:
    record = Record()
    verdicts = []
    for _ in range(POLICY.strikes):
        judgement = judge(evidence(Outcome.SILENT), record, POLICY)
        record = judgement.record
        verdicts.append(judgement.verdict)
    assert verdicts == [Verdict.SUSPECT, Verdict.SUSPECT, Verdict.FAILED]


def test_wrong_bytes_are_verified_once_more_before_they_condemn() -> None:
    first = judge(evidence(Outcome.WRONG), Record(), POLICY)
    assert first.verdict is Verdict.SUSPECT
    assert judge(evidence(Outcome.WRONG), first.record, POLICY).verdict is Verdict.FAILED
    assert judge(evidence(Outcome.OK), first.record, POLICY).verdict is Verdict.HEALTHY


@pytest.mark.parametrize("outcome", [Outcome.SILENT, Outcome.UNREACHABLE])
def test_when_nobody_answers_we_are_offline_and_nobody_is_struck(outcome: Outcome) -> None:
    judgement = judge(evidence(outcome, online=False), Record(1, 0), POLICY)
    assert judgement.verdict is Verdict.UNKNOWN
    assert judgement.record == Record(1, 0)


def test_an_unreachable_chain_is_unknown_even_when_the_data_is_there() -> None:
    assert judge(evidence(Outcome.OK, chain=None), Record(), POLICY).verdict is Verdict.UNKNOWN


def test_data_without_a_first_proof_is_not_green_yet() -> None:
    fresh = ChainView(listed=True, last_proof=0, span=500, now=1200)
    assert judge(evidence(Outcome.OK, chain=fresh), Record(), POLICY).verdict is Verdict.UNKNOWN


def test_a_late_proof_is_a_strike_although_the_data_is_there() -> None:
    late = ChainView(listed=True, last_proof=1000, span=500, now=1561)
    assert judge(evidence(Outcome.OK, chain=late), Record(), POLICY).verdict is Verdict.SUSPECT


def test_an_audit_that_asked_for_nothing_proves_nothing() -> None:
    assert judge(evidence(), Record(), POLICY).verdict is Verdict.UNKNOWN


@given(
    outcomes=st.lists(st.sampled_from(list(Outcome)), max_size=4),
    chain=st.none()
    | st.builds(
        ChainView,
        listed=st.booleans(),
        last_proof=st.integers(0, 2000),
        span=st.integers(1, 1000),
        now=st.integers(0, 4000),
    ),
    online=st.booleans(),
    record=st.builds(Record, st.integers(0, 5), st.integers(0, 2)),
)
def test_green_needs_data_and_proof_whatever_else_was_seen(
    outcomes: list[Outcome], chain: ChainView | None, online: bool, record: Record
) -> None:
    judgement = judge(Evidence(chain, outcomes, 0, online), record, POLICY)
    if judgement.verdict is Verdict.HEALTHY:
        assert outcomes
        assert set(outcomes) == {Outcome.OK}
        assert chain is not None
        assert chain.proof_in_time(POLICY.proof_margin)
    if judgement.verdict is Verdict.FAILED:
        assert online or Outcome.WRONG in outcomes or judgement.record.strikes >= POLICY.strikes


def test_pieces_are_distinct_and_inside_the_bag() -> None:
    pieces = choose_pieces(5, 3, random.Random(1))
    assert len(set(pieces)) == 3
    assert all(0 <= p < 5 for p in pieces)
    assert choose_pieces(2, 3, random.Random(1)) == [0, 1]


def test_suspects_are_asked_again_sooner_than_healthy_ones() -> None:
    assert next_due(None, None, POLICY, now=60.0) == 0.0
    assert next_due(50.0, Verdict.HEALTHY, POLICY, now=60.0) == 150.0
    assert next_due(50.0, Verdict.SUSPECT, POLICY, now=60.0) == 60.0
    assert next_due(50.0, Verdict.UNKNOWN, POLICY, now=60.0) == 60.0
    assert next_due(70.0, Verdict.HEALTHY, POLICY, now=60.0) == 0.0
