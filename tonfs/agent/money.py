"""The agent's purse: reads contracts, and moves coins through the journal and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio

from ..bag import TorrentInfo
from ..chain import storage2
from ..chain.api import AccountStatus, Chain
from ..chain.intents import IntentResult, Treasurer
from ..chain.journal import new_query_id
from ..chain.ledger import ContractAccount, History, contract_account, wallet_account
from ..chain.lite import open_chain
from ..chain.messages import Message
from ..chain.storage2 import StorageContract, Terms
from ..chain.wallet import Version, Wallet, key_address
from ..clock import Clock
from ..errors import NotFound
from ..ids import Address, BagId, NanoTon, ProviderKey
from ..log import get_logger
from .store import AgentStore

log = get_logger(__name__)

FRESH_FOR: Final = 2.0
"""Seconds for which a contract that was read serves the next reader too."""


class Money:
    """One per agent. Contract time comes with every contract that is read; amounts are nanoTON."""

    def __init__(self, chain: Chain, wallet: Wallet, store: AgentStore, clock: Clock) -> None:
        self.chain = chain
        self._wallet = wallet
        self._store = store
        self._treasurer = Treasurer(chain, wallet, store.conn, clock)
        self._seen: dict[Address, tuple[float, StorageContract | None, int]] = {}
        self._reading: dict[Address, trio.Lock] = {}
        self._balance: tuple[float, int] | None = None
        self._history = History(chain)

    @property
    def address(self) -> Address:
        return self._wallet.address

    async def recover(self) -> None:
        """Finish what a killed process left open. Raises ChainUnavailable when that cannot be known now."""
        for result in await self._treasurer.recover():
            log.info("intent taken up again", id=result.id, kind=result.kind, state=result.state)

    # Reading.

    def contract_address(self, info: TorrentInfo) -> Address:
        return storage2.contract_address(info, self._wallet.address)

    async def contract(self, address: Address, *, fresh: bool = False) -> tuple[StorageContract | None, int]:
        """The contract as proved account data shows it (None: not deployed) and the chain's time then.

        Several readers at once share one look. Raises ChainUnavailable, BadProof, BadData.
        """
        lock = self._reading.setdefault(address, trio.Lock())
        async with lock:
            seen = self._seen.get(address)
            if not fresh and seen is not None and trio.current_time() - seen[0] < FRESH_FOR:
                return seen[1], seen[2]
            state = await self.chain.account(address)
            self._treasurer.check_not_behind(state)
            try:
                contract: StorageContract | None = storage2.read_contract(state)
            except NotFound:
                contract = None
            self._seen[address] = (trio.current_time(), contract, state.now)
            return contract, state.now

    def forget(self, address: Address) -> None:
        """Let go of what is kept in memory of a contract."""
        self._seen.pop(address, None)
        self._reading.pop(address, None)

    async def balance(self) -> NanoTon:
        if self._balance is None or trio.current_time() - self._balance[0] > FRESH_FOR:
            self._balance = (trio.current_time(), (await self.chain.account(self._wallet.address)).balance)
        return NanoTon(self._balance[1])

    def committed(self) -> NanoTon:
        """Coins in contracts as last seen, and in intents that are under way."""
        return NanoTon(sum(c.balance for _, c, _ in self._seen.values() if c) + self._treasurer.committed())

    def spent_since(self, since: float) -> NanoTon:
        """What confirmed intents took out of the wallet and did not bring back, UTC seconds."""
        row = self._store.conn.execute(
            "SELECT coalesce(sum(amount - returned), 0) FROM intent WHERE state = 'confirmed' AND closed >= ?", (since,)
        ).fetchone()
        return NanoTon(row[0])

    @staticmethod
    def provider_address(key: ProviderKey) -> Address:
        """The wallet that a provider is paid to and proves from."""
        return key_address(key, Version.V3R2)

    # Paying.

    async def set_providers(
        self, bag_id: BagId, info: TorrentInfo, wanted: Mapping[ProviderKey, Terms], coins: int, reason: str
    ) -> IntentResult:
        """Deploy the contract or replace its list of providers. Raises IntentFailed, Refused, InsufficientCoins."""
        address = self.contract_address(info)
        state = await self.chain.account(address)
        deployed = state.status is AccountStatus.ACTIVE
        message = Message(
            to=address,
            amount=NanoTon(coins),
            body=storage2.modify_providers(new_query_id(), wanted),
            state_init=None if deployed else storage2.state_init(info, self._wallet.address),
            bounce=deployed,
        )
        kind = "change" if deployed else "open"
        result = await self._treasurer.execute(kind, address, [message], reason, bag_id=bag_id)
        self._seen.pop(address, None)
        return result.check()

    async def top_up(self, bag_id: BagId, contract: Address, amount: int, reason: str) -> IntentResult:
        message = Message(to=contract, amount=NanoTon(amount))
        result = await self._treasurer.execute("topup", contract, [message], reason, bag_id=bag_id)
        self._seen.pop(contract, None)
        return result.check()

    async def close(self, bag_id: BagId, info: TorrentInfo) -> None:
        """Pay nobody any more and take the money back. Nothing when that is done already, or was never opened."""
        address = self.contract_address(info)
        contract, _ = await self.contract(address, fresh=True)
        if contract is None or (not contract.providers and not contract.available):
            return
        messages = [
            Message(to=address, amount=storage2.WITHDRAW_VALUE, body=storage2.modify_providers(new_query_id(), {})),
            Message(to=address, amount=storage2.WITHDRAW_VALUE, body=storage2.withdraw(new_query_id())),
        ]
        result = await self._treasurer.execute("close", address, messages, "the bag is deleted", bag_id=bag_id)
        self._seen.pop(address, None)
        result.check()

    # The ledger.

    async def account_of(self, address: Address) -> ContractAccount:
        """Where the coins of one contract went."""
        history, balance = await self._history.of(address)
        return contract_account(address, self._wallet.address, history, balance)

    async def ledger(self) -> dict[str, Any]:
        """Every contract that coins ever went to, and the wallet; see docs/control.md. Raises ChainUnavailable."""
        bags = [b for b in self._store.bags("live", "closing", "closed") if b.contract is not None]
        rows = []
        total = {"funded": 0, "returned": 0, "rewards": 0, "contract_fees": 0, "left": 0}
        adds_up = True
        for bag in bags:
            assert bag.contract is not None
            account = await self.account_of(bag.contract)
            adds_up = adds_up and account.adds_up
            amounts = {"funded": account.funded, "returned": account.returned, "rewards": account.rewards,
                       "fees": account.fees, "left": account.left}  # fmt: skip
            rows.append({"bag_id": bag.bag_id.hex(), "contract": bag.contract, "state": bag.state, **amounts})
            for name in ("funded", "returned", "rewards", "left"):
                total[name] += amounts[name]
            total["contract_fees"] += account.fees
        history, balance = await self._history.of(self._wallet.address)
        wallet = wallet_account(history, balance, {b.contract for b in bags if b.contract})
        adds_up = adds_up and wallet.adds_up
        return {
            "wallet": self._wallet.address,
            "contracts": rows,
            "total": {
                **total,
                "received": wallet.received,
                "sent": wallet.sent,
                "wallet_fees": wallet.fees,
                "balance": wallet.balance,
                "on_the_way": wallet.funded - total["funded"] + total["returned"] - wallet.returned,
                "adds_up": adds_up,
            },
        }

    async def send(self, to: Address, amount: int, reason: str, *, bounce: bool) -> IntentResult:
        """A plain transfer out of the wallet."""
        message = Message(to=to, amount=NanoTon(amount), bounce=bounce)
        return (await self._treasurer.execute("send", to, [message], reason)).check()


@asynccontextmanager
async def open_money(volume: Path, global_config: Path, store: AgentStore, clock: Clock) -> AsyncIterator[Money]:
    """The purse of a volume: its wallet from `keys/words`, the chain through lite servers."""
    try:
        words = (volume / "keys" / "words").read_text(encoding="utf-8").split()
    except OSError as exc:
        raise NotFound(
            f"The wallet's words cannot be read ({exc.strerror}).", hint="They belong in keys/words of the volume."
        ) from None
    wallet = await trio.to_thread.run_sync(Wallet.from_words, words)
    async with open_chain(global_config) as chain:
        yield Money(chain, wallet, store, clock)
