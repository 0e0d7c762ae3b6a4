"""Audits: read the contract, fetch random pieces from that very provider, judge, keep the evidence."""

from __future__ import annotations

import random
from collections import Counter
from hashlib import sha256
from typing import Final

import trio

from ..audit import ChainView, Evidence, Outcome, Verdict, choose_pieces, judge, next_due
from ..bag import TorrentInfo
from ..errors import PeerTimeout, PeerUnreachable, TonfsError
from ..ids import BagId, ProviderKey
from ..log import get_logger
from ..network.api import PieceAnswer, PieceOutcome
from . import local
from .context import Agent
from .placement import PAID, Event, State
from .store import AuditEntry, Bag, Placement

log = get_logger(__name__)

AT_ONCE: Final = 6
"""Audits in flight together."""
PER_PROVIDER: Final = 3
"""Of these at one provider: one that is silent must not hold up the audits of the others."""
TICK: Final = 1.0
WITNESSES: Final = 4
"""Other providers asked for a sign of life before silence counts against one."""
AFTER_BREAK: Final = 30.0
"""Pause before an audit that broke (a bug, a full disk) is tried again."""

Key = tuple[BagId, ProviderKey]


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
        policy, jitter = agent.settings.policy.audit, _jitter(placement)
        at = next_due(placement.audit_at, placement.audit_verdict, policy, jitter, now=now)
        if at <= now:
            found.append((at, bag, placement))
    found.sort(key=lambda item: item[0])
    return [(bag, placement) for _, bag, placement in found]


def _jitter(placement: Placement) -> float:
    """From 0 to 1, another one for each placement and audit, the same whenever it is asked for."""
    seed = b"%b%b%d" % (placement.bag_id, placement.provider, int(placement.audit_at or 0))
    return int.from_bytes(sha256(seed).digest()[:4], "big") / 0xFFFFFFFF


class Auditor:
    """`run` for ever: audits what is due, a few at a time, those of one provider between those of the others."""

    def __init__(self, agent: Agent, rng: random.Random | None = None) -> None:
        self._agent = agent
        self._rng = rng or random.SystemRandom()
        self._running: set[Key] = set()
        self._broken: dict[Key, float] = {}

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                for bag, placement in self._choose():
                    self._running.add((bag.bag_id, placement.provider))
                    nursery.start_soon(self._audit, bag, placement)
                await self._agent.audit_now.wait(TICK)

    def _choose(self) -> list[tuple[Bag, Placement]]:
        """What to start now."""
        if len(self._running) >= AT_ONCE:
            return []
        now = self._agent.clock.now()
        self._broken = {key: until for key, until in self._broken.items() if until > now}
        at_provider = Counter(provider for _, provider in self._running)
        chosen: list[tuple[Bag, Placement]] = []
        for bag, placement in due(self._agent, now):
            key = (bag.bag_id, placement.provider)
            if len(self._running) + len(chosen) >= AT_ONCE:
                break
            if key in self._running or key in self._broken or at_provider[placement.provider] >= PER_PROVIDER:
                continue
            at_provider[placement.provider] += 1
            chosen.append((bag, placement))
        return chosen

    async def _audit(self, bag: Bag, placement: Placement) -> None:
        key = (bag.bag_id, placement.provider)
        try:
            await audit_placement(self._agent, bag, placement, self._rng)
        except Exception as exc:  # one audit that breaks must not end the others
            log.error("audit broke", bag_id=bag.bag_id.hex(), provider=placement.provider.hex(), exc=exc)
            self._broken[key] = self._agent.clock.now() + AFTER_BREAK
        finally:
            self._running.discard(key)
            self._agent.audit_now.set()


async def audit_placement(agent: Agent, bag: Bag, placement: Placement, rng: random.Random) -> Verdict:
    """One audit of one placement: evidence gathered, judged, recorded, and the placement's state moved."""
    policy = agent.settings.policy.audit
    started = agent.clock.now()
    chain = await chain_view(agent, bag, placement)
    try:
        # Without the chain nothing can be decided: one piece is enough to know that somebody is there.
        answers = await _ask_pieces(agent, bag, placement, policy.pieces if chain else 1, rng)
    except TonfsError as exc:
        # Our own trouble (no DHT, no peer process): nothing was learned about the provider.
        log.debug("audit could not be carried out", provider=placement.provider.hex(), reason=exc.message)
        answers = []
    outcomes = [Outcome(answer.outcome.value) for _, answer in answers]
    silent = any(outcome in (Outcome.SILENT, Outcome.UNREACHABLE) for outcome in outcomes)
    online = not silent or await _somebody_answers(agent, placement.provider, started)
    fresh = agent.store.placement(placement.bag_id, placement.provider)
    if fresh is None or fresh.state not in PAID:
        return Verdict.UNKNOWN  # removed meanwhile: nothing to judge any more
    now = agent.clock.now()
    evidence = Evidence(
        chain=chain,
        outcomes=outcomes,
        bytes=sum(answer.bytes for _, answer in answers),
        online=online,
        suspect_for=now - fresh.since if fresh.state is State.SUSPECT else 0.0,
    )
    judgement = judge(evidence, fresh.record, policy)
    entry = AuditEntry(
        verdict=judgement.verdict,
        outcomes=tuple((piece, answer.outcome.value) for piece, answer in answers),
        bytes=evidence.bytes,
        last_proof=chain.last_proof if chain else 0,
        record=judgement.record,
        reason=judgement.reason,
    )
    agent.store.record_audit(bag.bag_id, placement.provider, entry, now)
    if Outcome.UNREACHABLE in outcomes and online:
        agent.store.set_adnl(bag.bag_id, placement.provider, None)  # perhaps it serves from another id by now
    if judgement.verdict is not Verdict.UNKNOWN:
        _move(agent, fresh, _event(agent, bag, fresh, judgement.verdict), judgement.reason, now)
    return judgement.verdict


def _event(agent: Agent, bag: Bag, placement: Placement, verdict: Verdict) -> Event:
    """What a verdict means for the placement. The last that may still have the data is never given up: it would
    delete the data, and could have come back."""
    if verdict is Verdict.HEALTHY:
        return Event.HEALTHY
    others = [p for p in agent.store.placements(bag.bag_id) if p.provider != placement.provider]
    return Event.CONDEMN if verdict is Verdict.FAILED and local.has_copy(agent, bag, others) else Event.STRIKE


async def _somebody_answers(agent: Agent, silent: ProviderKey, since: float) -> bool:
    """Is it them or us? True only if another provider answered since this audit began; asks some to find out."""
    others = [key for key in agent.store.providers() if key != silent]
    random.shuffle(others)
    half = WITNESSES // 2
    recent = sorted(others, key=lambda key: -agent.heard.get(key, 0.0))[:half]
    witnesses = recent + [key for key in others if key not in recent][: WITNESSES - half]

    async def ask(key: ProviderKey) -> None:
        try:
            await agent.net.provider_rates(key, 1, timeout=agent.settings.policy.audit.timeout)
        except TonfsError:
            return
        agent.heard_from(key)

    if not agent.others_answered(silent, since):
        async with trio.open_nursery() as nursery:
            for key in witnesses:
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
        agent.store.provider_failed(placement.provider, now, agent.settings.policy.replica.avoid_failed)
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
    entry = contract.providers.get(placement.provider) if contract is not None else None
    if contract is None or entry is None:
        return ChainView(listed=False, last_proof=0, span=placement.span, now=now)
    # A provider does not prove what it is not paid for, and takes a while to see that coins came.
    margin = agent.settings.policy.audit.proof_margin
    payable = contract.available >= contract.bounty(placement.provider)
    payable = payable and agent.clock.now() - agent.store.last_topup(bag.contract) > margin
    return ChainView(listed=True, last_proof=entry.last_proof_time, span=entry.max_span, now=now, payable=payable)


async def _ask_pieces(
    agent: Agent, bag: Bag, placement: Placement, count: int, rng: random.Random
) -> list[tuple[int, PieceAnswer]]:
    """Random pieces from exactly this provider; after the first that does not come the rest is not asked."""
    timeout = agent.settings.policy.audit.timeout
    adnl = placement.adnl
    if adnl is None:
        if bag.contract is None:
            return []
        try:
            adnl = await agent.net.provider_adnl(placement.provider, bag.contract, timeout=timeout)
        except (PeerTimeout, PeerUnreachable) as exc:
            return [(0, PieceAnswer(PieceOutcome.UNREACHABLE, bytes=0, seconds=timeout, detail=exc.message))]
        agent.store.set_adnl(bag.bag_id, placement.provider, adnl)
        agent.heard_from(placement.provider)
    info = TorrentInfo.parse(bag.info, expect=bag.bag_id)
    await local.make_ready(agent, bag)
    answers: list[tuple[int, PieceAnswer]] = []
    for piece in choose_pieces(info.pieces, count, rng):
        answer = await agent.net.audit_piece(bag.bag_id, agent.pack_directory(bag.bag_id), piece, adnl, timeout=timeout)
        answers.append((piece, answer))
        if answer.outcome is not PieceOutcome.OK:
            break
        agent.heard_from(placement.provider)
    return answers
