"""The contract of a bag: its list of providers and its coins, brought to what agent.db wants.

Each step reads the contract first and sends only what is missing, so that it may be repeated after a crash at any
point. The journal (chain room) sees to it that what was sent once is not sent again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import trio

from ..bag import TorrentInfo
from ..chain.intents import FEES
from ..chain.storage2 import StorageContract, Terms, bounty
from ..errors import ChainUnavailable, InsufficientCoins
from ..ids import Address, BagId, NanoTon, ProviderKey, format_ton
from ..log import get_logger
from . import local
from .context import Agent
from .placement import PAID, Event, State
from .store import Bag, Placement

log = get_logger(__name__)

LOOK_EVERY: Final = 300.0
"""How often a contract is read while nothing happens to it."""
QUOTE_LIFE: Final = 600.0
"""Terms that were agreed so long ago, and that no contract shows, are asked for anew."""
SHOWN_WITHIN: Final = 60.0
"""Seconds for which a lite server may lag behind what the journal has already seen."""
GAS_RESERVE: Final = NanoTon(100_000_000)
"""What a contract holds above its bounties: its own fees, and the 0.08 TON that providers insist on."""


def deposit(available: int, info: TorrentInfo, wanted: Mapping[ProviderKey, Terms], spans: int) -> NanoTon:
    """Coins to attach so that every provider can be paid `spans` full spans."""
    each = sum(bounty(info.file_size, t.rate, t.max_span) for t in wanted.values())
    return NanoTon(max(GAS_RESERVE, spans * each + GAS_RESERVE - available))


def lists(contract: StorageContract | None, wanted: Mapping[ProviderKey, Terms]) -> bool:
    """Does the contract pay exactly these providers on these terms?"""
    return (dict(contract.providers) if contract else {}).keys() == wanted.keys() and all(
        contract is not None and contract.providers[key].terms == terms for key, terms in wanted.items()
    )


def terms_of(placements: list[Placement], *more: State) -> dict[ProviderKey, Terms]:
    """What the contract should list: who is paid and stays, and those in the states `more`."""
    return {p.provider: Terms(p.span, p.rate) for p in placements if p.state in PAID or p.state in more}


async def afford(agent: Agent, coins: int, what: str) -> None:
    """Raises InsufficientCoins before an intent is made that could only fail; ChainUnavailable, BadProof."""
    balance, need = await agent.money.balance(), coins + 2 * FEES
    if balance < need:
        raise InsufficientCoins(
            f"The wallet holds {format_ton(balance)} TON; {what} needs {format_ton(need)} TON.",
            hint="Send coins to the wallet's address ('tonfs wallet show').",
        )


class Contracts:
    """Keeps the contracts of live bags."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._seen: dict[BagId, float] = {}

    def forget(self, bag_id: BagId) -> None:
        """Drop what is remembered of a bag."""
        self._seen.pop(bag_id, None)

    def look_due(self, bag: Bag) -> bool:
        """Has nobody looked at this bag's contract for a while? Bags do not stay in step with each other."""
        seen = self._seen.get(bag.bag_id)
        pause = LOOK_EVERY * (1 + bag.bag_id[0] / 512)
        return bag.contract is not None and (seen is None or self._agent.clock.now() - seen > pause)

    async def drop_old_quotes(self, bag: Bag, placements: list[Placement], *, all_of_them: bool) -> bool:
        """Let go of agreed terms that led nowhere. Returns whether any were."""
        agent, now = self._agent, self._agent.clock.now()
        old = [p for p in placements if p.state is State.QUOTED and (all_of_them or now - p.since > QUOTE_LIFE)]
        if not old or bag.contract is None:
            return False
        contract, _ = await agent.money.contract(bag.contract, fresh=True)
        for placement in old:
            if contract is None or placement.provider not in contract.providers:
                agent.store.event(bag.bag_id, placement.provider, Event.DROP, now, "not hired in time")
        return True

    async def bring_up_to_date(self, bag: Bag, info: TorrentInfo) -> None:
        """The contract's list becomes: who is paid and stays, plus who is quoted; failed ones are left out.

        Raises InsufficientCoins, IntentFailed, ChainUnavailable, BadProof.
        """
        agent, address = self._agent, self._agent.money.contract_address(info)
        placements = agent.store.placements(bag.bag_id)
        keep = [] if local.has_copy(agent, bag, placements) else [State.FAILED]
        now = agent.clock.now()
        for placement in placements:
            if placement.state is State.FAILED and not keep:
                agent.store.event(bag.bag_id, placement.provider, Event.REMOVE, now)
        wanted = terms_of(placements, State.QUOTED, *keep)
        contract, _ = await agent.money.contract(address, fresh=True)
        if not lists(contract, wanted):
            coins = deposit(
                contract.available if contract else 0, info, wanted, agent.settings.policy.replica.fund_spans
            )
            await afford(agent, coins, "a change of providers")
            added = [p.provider.hex()[:12] for p in placements if p.state is State.QUOTED]
            reason = f"hire {len(added)}, keep {len(wanted) - len(added)} providers"
            await agent.money.set_providers(bag.bag_id, info, wanted, coins, reason)
            contract = await self._shown(address, wanted)
        listed = contract.providers.keys() if contract else set()
        now = agent.clock.now()
        for placement in agent.store.placements(bag.bag_id):
            if placement.state is State.QUOTED and placement.provider in listed:
                agent.store.event(bag.bag_id, placement.provider, Event.LISTED, now)
            elif placement.state is State.EVICTING and placement.provider not in listed:
                agent.store.event(bag.bag_id, placement.provider, Event.REMOVED, now)
        self._seen[bag.bag_id] = now
        agent.replicate_now.set()

    async def _shown(self, address: Address, wanted: Mapping[ProviderKey, Terms]) -> StorageContract | None:
        """The contract, once the lite server that we read shows what was confirmed."""
        with trio.move_on_after(SHOWN_WITHIN):
            while True:
                contract, _ = await self._agent.money.contract(address, fresh=True)
                if lists(contract, wanted):
                    return contract
                await self._agent.money.chain.wait_block()
        raise ChainUnavailable(f"The contract {address} does not show its new list of providers yet.")

    async def look(self, bag: Bag, info: TorrentInfo) -> None:
        """Is the contract what it should be? Tops it up before its providers run out of the next full-span bounty."""
        agent = self._agent
        if bag.contract is None:
            return
        contract, _ = await agent.money.contract(bag.contract, fresh=True)
        placements = agent.store.placements(bag.bag_id)
        paid = [p for p in placements if p.state in PAID]
        if not lists(contract, terms_of(placements)) and len(paid) == len(
            [p for p in placements if p.state is not State.GONE]
        ):
            log.warning("a contract does not list whom it should", contract=bag.contract)
            await self.bring_up_to_date(bag, info)
            return
        if contract is not None and paid:
            one_span = sum(bounty(info.file_size, p.rate, p.span) for p in paid)
            if contract.available < one_span + GAS_RESERVE:
                spans = agent.settings.policy.replica.fund_spans
                missing = NanoTon(spans * one_span + GAS_RESERVE - contract.available)
                await afford(agent, missing, "the next proofs of a bag")
                await agent.money.top_up(bag.bag_id, bag.contract, missing, "next proof periods of the providers")
        self._seen[bag.bag_id] = agent.clock.now()
