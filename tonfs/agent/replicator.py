"""Keeps every bag at the wanted number of replicas: quotes, hires, waits for proofs, replaces, winds down.

Each step reads what is there (agent.db, the contract) and does the one thing that is missing, so that it may be
repeated after a crash at any point. Coins move only through the journal (chain room).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import trio

from ..bag import TorrentInfo
from ..errors import InsufficientCoins, NoCopy, TonfsError
from ..ids import BagId
from ..log import get_logger
from ..market import select
from . import local
from .closing import close
from .context import Agent
from .contracts import Contracts
from .fetcher import is_replica
from .hiring import Hiring
from .placement import PAID, State
from .store import Bag, Placement
from .wire import known_packs

log = get_logger(__name__)

TICK: Final = 1.0
AT_ONCE: Final = 8
"""Bags looked after at the same time; bounds how often contracts are read, too."""
AGAIN_FIRST: Final = 3.0
AGAIN_LAST: Final = 600.0
"""Pause before a bag whose care did not work is looked after again; doubled each time."""
AGAIN_TRANSIENT: Final = 30.0
"""The longest such pause when trying again is all that helps."""
AGAIN_POOR: Final = 10.0
"""The pause while the wallet is empty: one look at its balance."""
AGAIN_SHORT: Final = 5.0
"""The pause while there are too few providers."""
TELL_EVERY: Final = 60.0


@dataclass(frozen=True)
class _Later:
    """A bag whose care did not work so many times, and when it is tried again (trio's time)."""

    times: int
    at: float


class Replicator:
    """`run` for ever; bags are looked after at the same time, each by one task."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._replicas = agent.settings.policy.replica.replicas
        self._hiring = Hiring(agent)
        self._contracts = Contracts(agent)
        self._busy: set[BagId] = set()
        self._later: dict[BagId, _Later] = {}
        self._told: list[dict[str, object]] = []
        self._told_at = 0.0
        self._recovered = False

    async def run(self) -> None:
        agent = self._agent
        limiter = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            while True:
                await self._talk_to_front()
                await self._recover()
                placements = agent.store.placements_by_bag()
                bags = agent.store.bags("live", "closing")
                for bag in bags:
                    mine = placements.get(bag.bag_id, [])
                    if bag.state == "live" and bag.bag_id not in self._busy:
                        await self._look_for_copies(bag, mine)
                    if self._may_care(bag) and self._needs_care(bag, mine):
                        self._busy.add(bag.bag_id)
                        nursery.start_soon(self._care, bag, limiter)
                await agent.replicate_now.wait(TICK)

    async def _recover(self) -> None:
        """What a killed process left open is finished before anything else is paid."""
        if not self._recovered and not self._agent.paused:
            try:
                await self._agent.money.recover()
            except TonfsError as exc:
                self._agent.problems.report("journal", exc)
            else:
                self._agent.problems.clear("journal")
                self._recovered = True

    def _may_care(self, bag: Bag) -> bool:
        later = self._later.get(bag.bag_id)
        free = bag.bag_id not in self._busy and (later is None or trio.current_time() >= later.at)
        return free and self._recovered and not self._agent.paused

    def _needs_care(self, bag: Bag, placements: list[Placement]) -> bool:
        """Cheap test on agent.db alone, so that hundreds of healthy bags cost nothing."""
        if bag.state == "closing":
            return True
        states = [p.state for p in placements]
        funding = [p for p in placements if p.state is State.FUNDING]
        return (
            any(state in (State.QUOTED, State.FAILED, State.EVICTING) for state in states)
            or sum(state in PAID for state in states) < self._agent.wanted(bag)
            or (bool(funding) and self._hiring.funding_due(bag, funding))
            or self._contracts.look_due(bag)
        )

    async def _care(self, bag: Bag, limiter: trio.CapacityLimiter) -> None:
        agent, key = self._agent, _key(bag)
        try:
            async with limiter:
                if agent.store.open_intents(bag.bag_id):
                    await agent.money.recover()  # an error came between signing and seeing: never sign it twice
                await (self._close(bag) if bag.state == "closing" else self._reconcile(bag))
            agent.problems.clear(key)
        except TonfsError as exc:
            agent.problems.report(key, exc)
            self._put_off(bag, exc)
            log.debug("bag is looked after again later", bag_id=bag.bag_id.hex(), reason=exc.message)
        except Exception as exc:  # one bag that breaks must not end the care for the others
            text = f"Internal error with bag {bag.bag_id.hex()[:12]}: {type(exc).__name__}: {exc}."
            agent.problems.report(key, TonfsError(text))
            self._put_off(bag, None)
            log.error("care of a bag broke", bag_id=bag.bag_id.hex(), exc=exc)
        else:
            self._succeeded(bag)
        finally:
            self._busy.discard(bag.bag_id)

    def _put_off(self, bag: Bag, exc: TonfsError | None) -> None:
        times = self._later[bag.bag_id].times + 1 if bag.bag_id in self._later else 1
        pause = min(AGAIN_LAST, AGAIN_FIRST * 2.0 ** min(times - 1, 20))
        if isinstance(exc, InsufficientCoins):
            pause = AGAIN_POOR
        elif exc is not None and exc.transient:
            pause = min(pause, AGAIN_TRANSIENT)
        self._later[bag.bag_id] = _Later(times, trio.current_time() + pause)

    def _succeeded(self, bag: Bag) -> None:
        """No more pauses, unless this very care asked for one (too few providers)."""
        later = self._later.get(bag.bag_id)
        if later is not None and (later.times or trio.current_time() >= later.at):
            del self._later[bag.bag_id]

    # Live bags.

    async def _reconcile(self, bag: Bag) -> None:
        agent = self._agent
        info = TorrentInfo.parse(bag.info, expect=bag.bag_id)
        address = agent.money.contract_address(info)
        if bag.contract != address:
            agent.store.set_contract(bag.bag_id, address)
            fresh = agent.store.bag(bag.bag_id)
            assert fresh is not None
            bag = fresh
        await self._agree(bag)
        placements = agent.store.placements(bag.bag_id)
        if any(p.state in (State.QUOTED, State.FAILED, State.EVICTING) for p in placements):
            await self._contracts.bring_up_to_date(bag, info)
        funding = [p for p in agent.store.placements(bag.bag_id) if p.state is State.FUNDING]
        if funding and self._hiring.funding_due(bag, funding):
            await self._hiring.look_after_funding(bag, funding)
        if self._contracts.look_due(bag):
            await self._contracts.look(bag, info)

    async def _agree(self, bag: Bag) -> None:
        """Choose providers for the replicas that are missing; agreed terms become placements in state quoted.

        Nobody is hired who could not get the data from anywhere.
        """
        agent, key = self._agent, _replicas_key(bag)
        placements = agent.store.placements(bag.bag_id)
        copy = local.has_copy(agent, bag, placements)
        if await self._contracts.drop_old_quotes(bag, placements, all_of_them=not copy):
            placements = agent.store.placements(bag.bag_id)
        taken = [p for p in placements if p.state in PAID or p.state is State.QUOTED]
        missing = agent.wanted(bag) - len(taken)
        if missing <= 0 or not copy:
            agent.problems.clear(key)
            if not copy:
                self._later[bag.bag_id] = _Later(0, trio.current_time() + AGAIN_SHORT)
            return
        used = {p.provider for p in placements if p.state is not State.GONE}
        quotes = await self._hiring.quotes(bag.size, used)
        chosen = select(quotes, missing, exclude=used, scores=self._hiring.scores())
        now = agent.clock.now()
        for quote in chosen:
            agent.store.quote(bag.bag_id, quote.provider, quote.rate, quote.span, now)
        if len(chosen) < missing:
            agent.problems.report(key, self._hiring.shortage(missing - len(chosen), used))
            self._later[bag.bag_id] = _Later(0, trio.current_time() + AGAIN_SHORT)
        else:
            agent.problems.clear(key)

    async def _look_for_copies(self, bag: Bag, placements: list[Placement]) -> None:
        """Notice that a pack vanished from this disk, and that nobody has a bag any more."""
        agent, key = self._agent, f"copies of {bag.bag_id.hex()[:12]}"
        if bag.local and not local.data_here(agent, bag):
            try:
                await local.lost(agent, bag, "its directory is gone")
            except TonfsError as exc:
                agent.problems.report(key, exc)
                return
        if local.has_copy(agent, bag, placements):
            agent.problems.clear(key)
            return
        held = sum(p.state is State.SUSPECT for p in placements)
        agent.problems.report(
            key,
            NoCopy(
                f"Bag {bag.bag_id.hex()[:12]} is not on this disk, and none of its providers passes its audits "
                f"({held} did before)."
            ),
        )

    # Dead bags.

    async def _close(self, bag: Bag) -> None:
        self._forget(bag)
        if await close(self._agent, bag):
            self._later.pop(bag.bag_id, None)

    def _forget(self, bag: Bag) -> None:
        """Nothing is kept in memory of a bag that goes."""
        self._hiring.forget(bag.bag_id)
        self._contracts.forget(bag.bag_id)
        self._agent.to_seed.discard(bag.bag_id)
        self._agent.problems.clear(_replicas_key(bag), f"copies of {bag.bag_id.hex()[:12]}")

    # The front.

    async def _talk_to_front(self) -> None:
        try:
            await self._find_dead()
            await self._tell_front()
        except TonfsError as exc:
            self._agent.problems.report("front", exc)
        else:
            self._agent.problems.clear("front")

    async def _find_dead(self) -> None:
        """A pack without a live byte starts to wind down, others learn what their files ask for now. What the front
        does not list is never touched."""
        agent = self._agent
        packs = known_packs(await agent.front.call("packs"))
        bags = {bag.bag_id: bag for bag in agent.store.bags("live", "closing")}
        for bag_id, pack in packs.items():
            bag = bags.get(bag_id)
            if bag is None:
                agent.in_doubt = True
            elif bag.state == "live" and pack.live == 0:
                agent.store.set_bag_state(bag_id, "closing")
            elif bag.state == "live" and bag.replicas != (asked := pack.replicas(self._replicas)):
                agent.store.set_replicas(bag_id, asked)
            if bag is not None and bag.state == "live" and not pack.told:
                self._told = []

    async def _tell_front(self) -> None:
        """How often each pack is proven; drives xattrs, status and what may be evicted."""
        agent = self._agent
        placements = agent.store.placements_by_bag()
        states: list[dict[str, object]] = [
            {
                "bag_id": bag.bag_id.hex(),
                "proven": sum(is_replica(p) for p in placements.get(bag.bag_id, [])),
                "wanted": agent.wanted(bag),
            }
            for bag in agent.store.bags("live")
        ]
        if states != self._told or trio.current_time() - self._told_at > TELL_EVERY:
            proved = {bag_id.hex(): _proved_at(some) for bag_id, some in placements.items()}
            packs = [{**state, "proved_at": proved.get(str(state["bag_id"]))} for state in states]
            await agent.front.call("pack_states", {"packs": packs})
            self._told, self._told_at = states, trio.current_time()


def _proved_at(placements: list[Placement]) -> float | None:
    """Since when every replica that counts has passed an audit."""
    return min((p.audit_at for p in placements if is_replica(p) and p.audit_at is not None), default=None)


def _key(bag: Bag) -> str:
    return f"bag {bag.bag_id.hex()[:12]}"


def _replicas_key(bag: Bag) -> str:
    return f"replicas of {bag.bag_id.hex()[:12]}"
