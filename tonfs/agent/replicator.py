"""Keeps every bag at the wanted number of replicas: quotes, hires, waits for proofs, replaces, winds down.

Each step reads what is there (agent.db, the contract) and does the one thing that is missing, so that it may be
repeated after a crash at any point. Coins move only through the journal (chain room).
"""

from __future__ import annotations

import shutil
from typing import Final

import trio

from ..bag import TorrentInfo
from ..chain.storage2 import StorageContract, Terms
from ..errors import BadPacket, NotFound, Refused, TonfsError
from ..ids import BagId, ProviderKey
from ..log import get_logger
from ..market import Quote, select
from .context import Agent
from .hiring import Hiring, deposit
from .placement import PAID, Event, State
from .store import Bag, Placement, Receipt
from .wire import front_bag

log = get_logger(__name__)

TICK: Final = 1.0
AT_ONCE: Final = 8
AGAIN_AFTER: Final = 3.0
"""Pause before a bag whose care did not work is looked after again."""


class Replicator:
    """One per agent. `run` for ever; bags are looked after at the same time, each by one task."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._hiring = Hiring(agent)
        self._busy: set[BagId] = set()
        self._told: list[dict[str, object]] = []

    async def run(self) -> None:
        agent = self._agent
        limiter = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            while True:
                if not agent.paused:
                    try:
                        await self._find_dead()
                        await self._tell_front()
                        agent.problems.pop("front", None)
                    except TonfsError as exc:
                        agent.problems["front"] = exc.message
                    for bag in agent.store.bags("live", "closing"):
                        if bag.bag_id not in self._busy and self._needs_care(bag):
                            self._busy.add(bag.bag_id)
                            nursery.start_soon(self._care, bag, limiter)
                await agent.replicate_now.wait(TICK)

    def _needs_care(self, bag: Bag) -> bool:
        """Cheap test on agent.db alone, so that hundreds of healthy bags cost nothing."""
        if bag.state == "closing":
            return True
        placements = self._agent.store.placements(bag.bag_id)
        paid = [p for p in placements if p.state in PAID]
        wanted = self._agent.settings.policy.replica.replicas
        moving = any(p.state in (State.QUOTED, State.FUNDING, State.FAILED, State.EVICTING) for p in placements)
        return moving or len(paid) < wanted or self._hiring.balance_due(bag)

    async def _care(self, bag: Bag, limiter: trio.CapacityLimiter) -> None:
        agent = self._agent
        key = f"bag {bag.bag_id.hex()[:12]}"
        try:
            async with limiter:
                await (self._close(bag) if bag.state == "closing" else self._reconcile(bag))
            agent.problems.pop(key, None)
        except TonfsError as exc:
            agent.problems[key] = exc.message
            log.debug("bag is looked after again later", bag_id=bag.bag_id.hex(), reason=exc.message)
            await trio.sleep(AGAIN_AFTER)
        except Exception as exc:  # one bag that breaks must not end the care for the others
            agent.problems[key] = f"Internal error with bag {bag.bag_id.hex()[:12]}: {type(exc).__name__}."
            log.error("care of a bag broke", bag_id=bag.bag_id.hex(), exc=exc)
            await trio.sleep(AGAIN_AFTER)
        finally:
            self._busy.discard(bag.bag_id)

    # Live bags.

    async def _reconcile(self, bag: Bag) -> None:
        agent = self._agent
        info = TorrentInfo.parse(bag.info, expect=bag.bag_id)
        address = agent.money.contract_address(info)
        if bag.contract != address:
            agent.store.set_contract(bag.bag_id, address)
        await self._quote_missing(bag)
        placements = agent.store.placements(bag.bag_id)
        if any(p.state in (State.QUOTED, State.FAILED, State.EVICTING) for p in placements):
            await self._bring_contract_up_to_date(bag, info, placements)
        funding = [p for p in agent.store.placements(bag.bag_id) if p.state is State.FUNDING]
        if funding:
            await self._hiring.look_after_funding(bag, funding)
        if self._hiring.balance_due(bag):
            await self._hiring.keep_funded(bag, info)

    async def _quote_missing(self, bag: Bag) -> None:
        """Choose providers for the replicas that are missing; agreed terms become placements in state quoted."""
        agent = self._agent
        placements = agent.store.placements(bag.bag_id)
        taken = [p for p in placements if p.state in PAID or p.state is State.QUOTED]
        missing = agent.settings.policy.replica.replicas - len(taken)
        if missing <= 0:
            return
        used = {p.provider for p in placements if p.state is not State.GONE}
        quotes: list[Quote] = await self._hiring.quotes(bag.size, used)
        chosen = select(quotes, missing, exclude=used, scores=self._hiring.scores())
        now = agent.clock.now()
        for quote in chosen:
            agent.store.quote(bag.bag_id, quote.provider, quote.rate, quote.span, now)
        key = _problem_key(bag)
        if len(chosen) < missing:
            agent.problems[key] = self._hiring.shortage(missing - len(chosen), used)
        else:
            agent.problems.pop(key, None)

    async def _bring_contract_up_to_date(self, bag: Bag, info: TorrentInfo, placements: list[Placement]) -> None:
        """The contract's list becomes: who is paid and stays, plus who is quoted; failed ones are left out."""
        agent = self._agent
        now = agent.clock.now()
        for placement in placements:
            if placement.state is State.FAILED:
                agent.store.event(bag.bag_id, placement.provider, Event.REMOVE, now)
        wanted = {
            p.provider: Terms(max_span=p.span, rate=p.rate)
            for p in placements
            if p.state in PAID or p.state is State.QUOTED
        }
        address = agent.money.contract_address(info)
        contract, _ = await agent.money.contract(address, fresh=True)
        if not _lists(contract, wanted):
            spans = agent.settings.policy.replica.fund_spans
            coins = deposit(contract.available if contract else 0, info, wanted, spans)
            added = [p.provider.hex()[:12] for p in placements if p.state is State.QUOTED]
            reason = f"hire {len(added)}, keep {len(wanted) - len(added)} providers"
            await agent.money.set_providers(bag.bag_id, info, wanted, coins, reason)
            contract, _ = await agent.money.contract(address, fresh=True)
        if contract is None or not _lists(contract, wanted):
            raise NotFound(f"The contract {address} does not show the new list yet.")
        now = agent.clock.now()
        for placement in agent.store.placements(bag.bag_id):
            if placement.state is State.QUOTED and placement.provider in contract.providers:
                agent.store.event(bag.bag_id, placement.provider, Event.LISTED, now)
            elif placement.state is State.EVICTING and placement.provider not in contract.providers:
                agent.store.event(bag.bag_id, placement.provider, Event.REMOVED, now)
        agent.replicate_now.set()

    # Dead bags.

    async def _find_dead(self) -> None:
        """A pack without a live byte starts to wind down. What the front does not list is never touched."""
        agent = self._agent
        reply = await agent.front.call("packs")
        live = {bag.bag_id for bag in agent.store.bags("live")}
        try:
            dead = [front_bag(p["bag_id"]) for p in reply["packs"] if int(p["live"]) == 0]
        except (KeyError, TypeError, ValueError) as exc:
            raise BadPacket(f"The front's list of packs is malformed: {exc!r}") from None
        for bag_id in dead:
            if bag_id in live:
                agent.store.set_bag_state(bag_id, "closing")

    async def _close(self, bag: Bag) -> None:
        """Let go of a bag: the front forgets the pack (or refuses), coins come back, files go, a receipt stays."""
        agent = self._agent
        try:
            await agent.front.call("drop_pack", {"bag_id": bag.bag_id.hex()})
        except NotFound:
            pass  # dropped before a crash; `closing` was recorded first
        except Refused:
            agent.store.set_bag_state(bag.bag_id, "live")
            return
        info = TorrentInfo.parse(bag.info, expect=bag.bag_id)
        address = agent.money.contract_address(info)
        await agent.money.close(bag.bag_id, info)
        now = agent.clock.now()
        for placement in agent.store.placements(bag.bag_id):
            if placement.state is State.QUOTED:
                agent.store.event(bag.bag_id, placement.provider, Event.DROP, now)
            elif placement.state in PAID or placement.state is State.FAILED:
                agent.store.event(bag.bag_id, placement.provider, Event.REMOVE, now)
            if placement.state not in (State.QUOTED, State.GONE):
                agent.store.event(bag.bag_id, placement.provider, Event.REMOVED, now)
        account = await agent.money.account_of(address)
        agent.store.add_receipt(
            Receipt(bag.bag_id, address, now, account.funded, account.returned, account.rewards, account.fees,
                    account.left)
        )  # fmt: skip
        async with agent.locks.hold(bag.bag_id):
            await agent.net.forget(bag.bag_id)
            directory = agent.pack_directory(bag.bag_id)
            await trio.to_thread.run_sync(lambda: shutil.rmtree(directory, ignore_errors=True))
        agent.store.set_bag_state(bag.bag_id, "closed")
        agent.problems.pop(_problem_key(bag), None)
        agent.money.forget(address)
        log.info("bag closed", bag_id=bag.bag_id.hex(), returned=account.returned)

    # The front.

    async def _tell_front(self) -> None:
        """How often each pack is proven; drives xattrs, status and what may be evicted."""
        agent = self._agent
        wanted = agent.settings.policy.replica.replicas
        states: list[dict[str, object]] = []
        for bag in agent.store.bags("live"):
            placements = agent.store.placements(bag.bag_id)
            proven = sum(p.state is State.ACTIVE and p.audit_pieces > 0 for p in placements)
            states.append({"bag_id": bag.bag_id.hex(), "proven": proven, "wanted": wanted})
        if states != self._told:
            await agent.front.call("pack_states", {"packs": states})
            self._told = states


def _problem_key(bag: Bag) -> str:
    return f"replicas of {bag.bag_id.hex()[:12]}"


def _lists(contract: StorageContract | None, wanted: dict[ProviderKey, Terms]) -> bool:
    """Does the contract pay exactly these providers on these terms?"""
    if contract is None:
        return not wanted
    return {k: (e.max_span, e.rate) for k, e in contract.providers.items()} == {
        k: (t.max_span, t.rate) for k, t in wanted.items()
    }
