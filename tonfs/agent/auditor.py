"""Audits: read the contract, fetch random pieces from that very provider, judge, keep the evidence."""

from __future__ import annotations

import random
from typing import Final

import trio

from ..audit import ChainView, Evidence, Outcome, Verdict, choose_pieces, judge, next_due
from ..bag import TorrentInfo
from ..errors import PeerTimeout, PeerUnreachable, TonfsError
from ..ids import ProviderKey
from ..log import get_logger
from ..network.api import PieceAnswer, PieceOutcome
from .context import Agent
from .placement import PAID, Event, State
from .store import AuditEntry, Bag, Placement

log = get_logger(__name__)

AT_ONCE: Final = 6
"""Audits in flight together."""
TICK: Final = 1.0
WITNESSES: Final = 4
"""Other providers asked for a sign of life before silence counts against one."""


def due(agent: Agent, now: float) -> list[tuple[Bag, Placement]]:
    """Placements to audit now, longest overdue first. A funding one counts only after its first proof."""
    bags = {bag.bag_id: bag for bag in agent.store.bags("live")}
    found: list[tuple[float, Bag, Placement]] = []
    for placement in agent.store.placements():
        bag = bags.get(placement.bag_id)
        if bag is None or bag.contract is None or placement.state not in PAID:
            continue
        if placement.state is State.FUNDING and placement.last_proof == 0:
            continue
        at = next_due(placement.audit_at, placement.audit_verdict, agent.settings.policy.audit)
        if at <= now:
            found.append((at, bag, placement))
    found.sort(key=lambda item: item[0])
    return [(bag, placement) for _, bag, placement in found]


async def auditor(agent: Agent, rng: random.Random | None = None) -> None:
    """Run for ever: every second, audit what is due, `AT_ONCE` at a time."""
    source = rng or random.SystemRandom()
    while True:
        limiter = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            for bag, placement in due(agent, agent.clock.now()):
                nursery.start_soon(_limited, agent, bag, placement, source, limiter)
        await agent.audit_now.wait(TICK)


async def _limited(
    agent: Agent, bag: Bag, placement: Placement, rng: random.Random, limiter: trio.CapacityLimiter
) -> None:
    async with limiter:
        try:
            await audit_placement(agent, bag, placement, rng)
        except Exception as exc:  # one audit that breaks must not end the others
            log.error("audit broke", bag_id=bag.bag_id.hex(), provider=placement.provider.hex(), exc=exc)
            await trio.sleep(TICK)


async def audit_placement(agent: Agent, bag: Bag, placement: Placement, rng: random.Random) -> Verdict:
    """One audit of one placement: evidence gathered, judged, recorded, and the placement's state moved."""
    policy = agent.settings.policy.audit
    started = agent.clock.now()
    chain = await chain_view(agent, bag, placement)
    try:
        answers = await _ask_pieces(agent, bag, placement, rng)
    except TonfsError as exc:
        # Our own trouble (no DHT, no peer process): nothing was learned about the provider.
        log.debug("audit could not be carried out", provider=placement.provider.hex(), reason=exc.message)
        answers = []
    outcomes = [Outcome(answer.outcome.value) for _, answer in answers]
    silent = any(outcome in (Outcome.SILENT, Outcome.UNREACHABLE) for outcome in outcomes)
    evidence = Evidence(
        chain=chain,
        outcomes=outcomes,
        bytes=sum(answer.bytes for _, answer in answers),
        online=not silent or await _somebody_answers(agent, placement.provider, started),
    )
    fresh = agent.store.placement(placement.bag_id, placement.provider)
    if fresh is None or fresh.state not in PAID:
        return Verdict.UNKNOWN  # removed meanwhile: nothing to judge any more
    judgement = judge(evidence, fresh.record, policy)
    entry = AuditEntry(
        verdict=judgement.verdict,
        outcomes=tuple((piece, answer.outcome.value) for piece, answer in answers),
        bytes=evidence.bytes,
        last_proof=chain.last_proof if chain else 0,
        record=judgement.record,
        reason=judgement.reason,
    )
    now = agent.clock.now()
    agent.store.record_audit(bag.bag_id, placement.provider, entry, now)
    event = {
        Verdict.HEALTHY: Event.HEALTHY,
        Verdict.SUSPECT: Event.STRIKE,
        Verdict.FAILED: Event.CONDEMN,
    }.get(judgement.verdict)
    if event is not None:
        _move(agent, fresh, event, judgement.reason, now)
    return judgement.verdict


async def _somebody_answers(agent: Agent, silent: ProviderKey, since: float) -> bool:
    """Is it them or us? True only if another provider answered since this audit began; asks some to find out."""
    others = [key for key in agent.store.providers() if key != silent]
    others.sort(key=lambda key: -agent.heard.get(key, 0.0))

    async def ask(key: ProviderKey) -> None:
        try:
            await agent.net.provider_rates(key, 1, timeout=agent.settings.policy.audit.timeout)
        except TonfsError:
            return
        agent.heard_from(key)

    if not agent.others_answered(silent, since):
        async with trio.open_nursery() as nursery:
            for key in others[:WITNESSES]:
                nursery.start_soon(ask, key)
    return agent.others_answered(silent, since)


def _move(agent: Agent, placement: Placement, event: Event, reason: str, now: float) -> None:
    state = agent.store.event(placement.bag_id, placement.provider, event, now, reason)
    if state is placement.state:
        return
    log.info(
        "placement changed",
        bag_id=placement.bag_id.hex(),
        provider=placement.provider.hex(),
        was=placement.state,
        now=state,
        reason=reason,
    )
    if state is State.FAILED:
        agent.store.provider_failed(placement.provider, now)
    agent.replicate_now.set()


async def chain_view(agent: Agent, bag: Bag, placement: Placement) -> ChainView | None:
    """What the contract says of this provider, or None when the chain cannot be read."""
    if bag.contract is None:
        return None
    try:
        contract, now = await agent.money.contract(bag.contract)
    except TonfsError as exc:
        log.debug("contract could not be read", contract=bag.contract, reason=exc.message)
        return None
    if contract is None:
        return None
    entry = contract.providers.get(placement.provider)
    if entry is None:
        return ChainView(listed=False, last_proof=0, span=placement.span, now=now)
    return ChainView(listed=True, last_proof=entry.last_proof_time, span=entry.max_span, now=now)


async def _ask_pieces(
    agent: Agent, bag: Bag, placement: Placement, rng: random.Random
) -> list[tuple[int, PieceAnswer]]:
    """Random pieces from exactly this provider; after the first that does not come the rest is not asked."""
    policy = agent.settings.policy.audit
    adnl = placement.adnl
    if adnl is None:
        if bag.contract is None:
            return []
        try:
            adnl = await agent.net.provider_adnl(placement.provider, bag.contract, timeout=policy.timeout)
        except (PeerTimeout, PeerUnreachable) as exc:
            return [(0, PieceAnswer(PieceOutcome.UNREACHABLE, bytes=0, seconds=policy.timeout, detail=exc.message))]
        agent.store.set_adnl(bag.bag_id, placement.provider, adnl)
        agent.heard_from(placement.provider)
    info = TorrentInfo.parse(bag.info, expect=bag.bag_id)
    answers: list[tuple[int, PieceAnswer]] = []
    for piece in choose_pieces(info.pieces, policy.pieces, rng):
        answer = await agent.net.audit_piece(
            bag.bag_id, agent.pack_directory(bag.bag_id), piece, adnl, timeout=policy.timeout
        )
        answers.append((piece, answer))
        if answer.outcome is not PieceOutcome.OK:
            break
        agent.heard_from(placement.provider)
    return answers
