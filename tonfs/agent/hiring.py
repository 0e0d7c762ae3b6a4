"""The market side of the replicator: quotes and scores, looking after fresh placements, keeping contracts funded."""

from __future__ import annotations

import secrets
from typing import Final

import trio

from ..bag import TorrentInfo
from ..chain.storage2 import Terms, bounty
from ..errors import TonfsError
from ..ids import BagId, NanoTon, ProviderKey
from ..log import get_logger
from ..market import Quote, discover, quote
from .context import Agent
from .placement import PAID, Event
from .store import Bag, Placement

log = get_logger(__name__)

QUOTE_TIMEOUT: Final = 5.0
STATUS_TIMEOUT: Final = 5.0
DISCOVER_EVERY: Final = 20.0
AVOID_AFTER_SILENCE: Final = 20.0
"""A provider that did not answer a quote is not asked again for this long."""
BALANCE_EVERY: Final = 300.0
GAS_RESERVE: Final = NanoTon(100_000_000)
"""What a contract holds above its bounties: its own fees, and the 0.08 TON that providers insist on."""


class Hiring:
    """Keeps the list of known providers and what they last said."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._known: list[ProviderKey] = []
        self._looked: float | None = None
        self._silent: dict[ProviderKey, float] = {}
        self._balance_seen: dict[BagId, float] = {}
        self._lock = trio.Lock()

    async def providers(self) -> list[ProviderKey]:
        """Registered providers, from the chain; looked up anew now and then."""
        async with self._lock:
            now = self._agent.clock.now()
            if self._looked is None or now - self._looked > DISCOVER_EVERY or not self._known:
                self._known = await discover(self._agent.money.chain)
                self._looked = now
            return list(self._known)

    def _failed_lately(self) -> set[ProviderKey]:
        now, base = self._agent.clock.now(), self._agent.settings.policy.replica.avoid_failed
        return {
            p.key
            for p in self._agent.store.providers().values()
            if p.failed_at is not None and now - p.failed_at < base * 2 ** min(p.failures - 1, 10)
        }

    def _silent_lately(self) -> set[ProviderKey]:
        now = self._agent.clock.now()
        return {key for key, at in self._silent.items() if now - at < AVOID_AFTER_SILENCE}

    def shortage(self, missing: int, used: set[ProviderKey]) -> str:
        """Why not enough providers can be hired, for a person."""
        known = set(self._known)
        free = known - used
        failed, silent = free & self._failed_lately(), free & self._silent_lately()
        return (
            f"{missing} more replicas are wanted; of {len(known)} known providers {len(known & used)} hold the bag, "
            f"{len(failed)} failed lately and {len(silent - failed)} do not answer or do not want it."
        )

    async def quotes(self, size: int, used: set[ProviderKey]) -> list[Quote]:
        """Quotes from everybody who may be hired now: not used for this bag, not failed lately, answering."""
        agent = self._agent
        failed, silent = self._failed_lately(), self._silent_lately()
        found: list[Quote] = []

        async def ask(key: ProviderKey) -> None:
            try:
                answer = await quote(agent.net, key, size, agent.settings.policy.replica, timeout=QUOTE_TIMEOUT)
            except TonfsError as exc:
                self._silent[key] = agent.clock.now()
                log.debug("no quote", provider=key.hex(), reason=exc.message)
                return
            agent.heard_from(key)
            agent.store.provider_quoted(key, answer.asked_rate, agent.clock.now())
            found.append(answer)

        async with trio.open_nursery() as nursery:
            for key in await self.providers():
                if key not in used and key not in failed and key not in silent:
                    nursery.start_soon(ask, key)
        return found

    def scores(self) -> dict[ProviderKey, float]:
        """1.0 for a provider without failures, less for each failure seen."""
        return {key: 1.0 / (1 + info.failures) for key, info in self._agent.store.providers().items()}

    async def look_after_funding(self, bag: Bag, funding: list[Placement]) -> None:
        """Tell fresh providers to store the bag; note their first proof; give up on those that never come."""
        agent = self._agent
        contract, _ = await agent.money.contract(bag.contract) if bag.contract else (None, 0)
        now = agent.clock.now()

        async def tell(placement: Placement) -> None:
            entry = contract.providers.get(placement.provider) if contract else None
            if entry is not None and entry.last_proof_time > 0:
                agent.store.set_last_proof(bag.bag_id, placement.provider, entry.last_proof_time)
                agent.audit_now.set()
                return
            reason = await self._tell_to_store(bag, placement)
            if now - placement.since > agent.settings.policy.replica.start_deadline:
                text = reason or "no proof within the start deadline"
                agent.store.event(bag.bag_id, placement.provider, Event.CONDEMN, now, text)
                agent.store.provider_failed(placement.provider, now)
                agent.replicate_now.set()

        async with trio.open_nursery() as nursery:
            for placement in funding:
                nursery.start_soon(tell, placement)

    async def _tell_to_store(self, bag: Bag, placement: Placement) -> str:
        """One storage request. Returns what keeps the provider from storing, if it said so."""
        if bag.contract is None:
            return ""
        try:
            status = await self._agent.net.provider_storage(
                placement.provider, bag.contract, secrets.randbelow(bag.size), timeout=STATUS_TIMEOUT
            )
        except TonfsError as exc:
            return exc.message
        self._agent.heard_from(placement.provider)
        return status.reason if status.status == "error" else ""

    # Keeping contracts funded.

    def balance_due(self, bag: Bag) -> bool:
        """Has nobody looked at this contract's balance for a while?"""
        seen = self._balance_seen.get(bag.bag_id)
        return bag.contract is not None and (seen is None or self._agent.clock.now() - seen > BALANCE_EVERY)

    async def keep_funded(self, bag: Bag, info: TorrentInfo) -> None:
        """Top the contract up before its providers run out of the next full-span bounty."""
        agent = self._agent
        if bag.contract is None:
            return
        paid = [p for p in agent.store.placements(bag.bag_id) if p.state in PAID]
        contract, _ = await agent.money.contract(bag.contract, fresh=True)
        self._balance_seen[bag.bag_id] = agent.clock.now()
        if contract is None or not paid:
            return
        one_span = sum(bounty(info.file_size, p.rate, p.span) for p in paid)
        if contract.available >= one_span + GAS_RESERVE:
            return
        spans = agent.settings.policy.replica.fund_spans
        missing = NanoTon(spans * one_span + GAS_RESERVE - contract.available)
        await agent.money.top_up(bag.bag_id, bag.contract, missing, "next proof periods of the providers")


def deposit(available: int, info: TorrentInfo, wanted: dict[ProviderKey, Terms], spans: int) -> NanoTon:
    """Coins to attach so that every provider can be paid `spans` full spans."""
    each = sum(bounty(info.file_size, t.rate, t.max_span) for t in wanted.values())
    return NanoTon(max(GAS_RESERVE, spans * each + GAS_RESERVE - available))
