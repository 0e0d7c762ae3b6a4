"""The market side of the replicator: who can be hired, on what terms, and what became of those who were."""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass
from typing import Final

import trio

from ..chain.storage2 import MIN_FUNDING, StorageContract
from ..errors import DhtUnavailable, NotRunning, Refused, TonfsError, TooFewProviders
from ..ids import BagId, ProviderKey
from ..log import get_logger
from ..market import Quote, discover, quote
from .context import Agent
from .placement import Event
from .store import Bag, Placement

log = get_logger(__name__)

QUOTE_TIMEOUT: Final = 5.0
STATUS_TIMEOUT: Final = 5.0
DISCOVER_EMPTY: Final = 3.0
DISCOVER_FIRST: Final = 20.0
DISCOVER_LAST: Final = 300.0
"""The list of providers is read again after this long, while somebody is looked for and nobody new turns up."""
AVOID_AFTER_SILENCE: Final = 20.0
"""A provider that did not answer a quote, or refused, is not asked again for this long."""
ASKED_AT_ONCE: Final = 16
MOST_ASKED: Final = 32
"""Providers asked for one bag; the cheapest ones known, and ones that were never asked."""
LOOK_FIRST: Final = 1.0
LOOK_LAST: Final = 15.0
"""Pause between two looks at fresh placements; it grows with their age."""
GIVE_UP: Final = 4
"""Start deadlines after which a placement is let go that nobody can be blamed for."""


@dataclass
class _Seen:
    """What a fresh provider said last of its download."""

    downloaded: int
    grew_at: float


class Hiring:
    """Keeps the list of known providers and what they last said."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._known: list[ProviderKey] = []
        self._looked: float | None = None
        self._pause = DISCOVER_FIRST
        self._silent: dict[ProviderKey, float] = {}
        self._refused: dict[ProviderKey, float] = {}
        self._lock = trio.Lock()
        self._asking = trio.CapacityLimiter(ASKED_AT_ONCE)
        self._funding_seen: dict[BagId, float] = {}
        self._downloads: dict[tuple[BagId, ProviderKey], _Seen] = {}

    def forget(self, bag_id: BagId) -> None:
        """Drop what is remembered of a bag."""
        self._funding_seen.pop(bag_id, None)
        for key in [key for key in self._downloads if key[0] == bag_id]:
            del self._downloads[key]

    # Who can be hired.

    async def providers(self) -> list[ProviderKey]:
        """Registered providers, from the chain; looked up anew now and then, less often while nobody new comes."""
        async with self._lock:
            now = self._agent.clock.now()
            if self._looked is None or now - self._looked > self._pause:
                found = await discover(self._agent.money.chain)
                new = set(found) - set(self._known)
                self._pause = DISCOVER_FIRST if new else min(DISCOVER_LAST, self._pause * 2)
                if not found:
                    self._pause = DISCOVER_EMPTY
                self._known, self._looked = found, now
            return list(self._known)

    def _failed_lately(self) -> set[ProviderKey]:
        now, base = self._agent.clock.now(), self._agent.settings.policy.replica.avoid_failed
        return {p.key for p in self._agent.store.providers().values() if now < p.avoid_until(base)}

    def _lately(self, when: dict[ProviderKey, float]) -> set[ProviderKey]:
        now = self._agent.clock.now()
        return {key for key, at in when.items() if now - at < AVOID_AFTER_SILENCE}

    def shortage(self, missing: int, used: set[ProviderKey]) -> TooFewProviders:
        """Why not enough providers can be hired, for a person."""
        known = set(self._known)
        free = known - used
        failed = free & self._failed_lately()
        refused = (free & self._lately(self._refused)) - failed
        silent = (free & self._lately(self._silent)) - failed - refused
        return TooFewProviders(
            f"{missing} more replicas are wanted; of {len(known)} known providers {len(known & used)} hold the bag, "
            f"{len(failed)} failed lately, {len(silent)} do not answer, {len(refused)} have no room or ask too much."
        )

    async def quotes(self, size: int, used: set[ProviderKey]) -> list[Quote]:
        """Quotes from those who may be hired now: not used for this bag, not failed lately, answering.

        Raises DhtUnavailable, NotRunning when our own network is gone; ChainUnavailable, BadProof.
        """
        agent = self._agent
        known = await self.providers()
        out = used | self._failed_lately() | self._lately(self._silent) | self._lately(self._refused)
        free = [key for key in known if key not in out]
        random.shuffle(free)
        prices = {key: info.price or 0 for key, info in agent.store.providers().items()}
        free.sort(key=lambda key: prices.get(key, 0))
        found: list[Quote] = []
        ours: list[TonfsError] = []

        async def ask(key: ProviderKey) -> None:
            async with self._asking:
                try:
                    answer = await quote(agent.net, key, size, agent.settings.policy.replica, timeout=QUOTE_TIMEOUT)
                except (DhtUnavailable, NotRunning) as exc:
                    ours.append(exc)
                    return
                except TonfsError as exc:
                    (self._refused if isinstance(exc, Refused) else self._silent)[key] = agent.clock.now()
                    log.debug("no quote", provider=key.hex(), reason=exc.message)
                    return
            agent.heard_from(key)
            agent.store.provider_quoted(key, answer.asked_rate, agent.clock.now())
            found.append(answer)

        async with trio.open_nursery() as nursery:
            for key in free[:MOST_ASKED]:
                nursery.start_soon(ask, key)
        if ours and not found:
            raise ours[0]
        return found

    def scores(self) -> dict[ProviderKey, float]:
        """1.0 for a provider without failures, less for each failure seen."""
        return {key: 1.0 / (1 + info.failures) for key, info in self._agent.store.providers().items()}

    # Those who were hired and have not proved yet.

    def funding_due(self, bag: Bag, funding: list[Placement]) -> bool:
        """Is it time to look at the fresh placements of this bag?"""
        now = self._agent.clock.now()
        youngest = now - max(p.since for p in funding)
        pause = min(LOOK_LAST, max(LOOK_FIRST, youngest / 20))
        return now - self._funding_seen.get(bag.bag_id, 0.0) >= pause

    async def look_after_funding(self, bag: Bag, funding: list[Placement]) -> None:
        """Tell fresh providers to store the bag; note their first proof; give up on those that never come."""
        agent = self._agent
        if bag.contract is None:
            return
        contract, _ = await agent.money.contract(bag.contract)
        self._funding_seen[bag.bag_id] = agent.clock.now()

        async def look(placement: Placement) -> None:
            entry = contract.providers.get(placement.provider) if contract else None
            if entry is None or entry.last_proof_time == 0:
                await self._tell(bag, placement, contract)
            elif placement.last_proof == 0:
                agent.store.set_last_proof(bag.bag_id, placement.provider, entry.last_proof_time)
                self._downloads.pop((bag.bag_id, placement.provider), None)
                agent.audit_now.set()

        async with trio.open_nursery() as nursery:
            for placement in funding:
                nursery.start_soon(look, placement)

    async def _tell(self, bag: Bag, placement: Placement, contract: StorageContract | None) -> None:
        """One storage request; after the start deadline, what is to become of a provider that has not proved."""
        agent, asked_at = self._agent, self._agent.clock.now()
        status, text, downloaded = "", "", 0
        assert bag.contract is not None
        try:
            answer = await agent.net.provider_storage(
                placement.provider, bag.contract, secrets.randbelow(bag.size), timeout=STATUS_TIMEOUT
            )
        except (DhtUnavailable, NotRunning) as exc:
            log.debug("a provider cannot be told to store", reason=exc.message)
            return
        except TonfsError as exc:
            text = exc.message
        else:
            agent.heard_from(placement.provider)
            status, downloaded = answer.status, answer.downloaded
            text = answer.reason if status == "error" else ""
        key, now = (bag.bag_id, placement.provider), agent.clock.now()
        seen = self._downloads.setdefault(key, _Seen(downloaded, placement.since))
        if downloaded > seen.downloaded:
            self._downloads[key] = seen = _Seen(downloaded, now)
        deadline = agent.settings.policy.replica.start_deadline
        if now - max(seen.grew_at, placement.since) <= deadline:
            return
        if not status and not agent.others_answered(placement.provider, asked_at):
            return  # nobody answers: we may be offline
        blame = self._is_to_blame(bag, placement, contract, status)
        if blame or now - placement.since > GIVE_UP * deadline:
            del self._downloads[key]
            self._give_up(placement, text or "no proof within the start deadline", blame=blame)

    def _is_to_blame(self, bag: Bag, placement: Placement, contract: StorageContract | None, status: str) -> bool:
        """Is it this provider's failure that there is no proof? Not when the contract cannot pay, nor when it waits
        for data that nobody else got from us either."""
        if contract is None or contract.available < MIN_FUNDING:
            return False
        if status in ("resolving", "downloading"):
            others = self._agent.store.placements(bag.bag_id)
            return any(p.last_proof > 0 for p in others if p.provider != placement.provider)
        return True

    def _give_up(self, placement: Placement, reason: str, *, blame: bool) -> None:
        agent, now = self._agent, self._agent.clock.now()
        log.info("a fresh placement is given up", bag_id=placement.bag_id, provider=placement.provider, reason=reason)
        if blame:
            agent.store.event(placement.bag_id, placement.provider, Event.CONDEMN, now, reason)
            agent.store.provider_failed(placement.provider, now, agent.settings.policy.replica.avoid_failed)
        else:
            agent.store.event(placement.bag_id, placement.provider, Event.REMOVE, now, reason)
        agent.replicate_now.set()
