"""The ledger: what was spent on what, from the chain's own transactions, exact to the nanoTON.

For a storage contract every coin is accounted for by

    funded + attached by providers = returned + paid out to providers + fees + left

and for the wallet by received + returned = funded + sent elsewhere + fees + balance. A ledger that does not add up says
so; nothing is rounded or estimated.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from ..errors import BadProof
from ..ids import Address, NanoTon
from .api import Chain, MessageKind, Transaction

PAGE: Final = 16
ATTEMPTS: Final = 5


@dataclass(frozen=True)
class ContractAccount:
    """One contract's coins, all in nanoTON."""

    address: Address
    funded: int = 0
    """Arrived from the owner."""
    returned: int = 0
    """Sent back to the owner."""
    rewards: int = 0
    """Paid out to providers, less what they attached to their proofs."""
    fees: int = 0
    left: int = 0
    """On the account now."""

    @property
    def adds_up(self) -> bool:
        return self.funded == self.returned + self.rewards + self.fees + self.left


@dataclass(frozen=True)
class WalletAccount:
    """The wallet's coins, all in nanoTON."""

    received: int
    """From anybody but the contracts."""
    funded: int
    """Sent to contracts."""
    returned: int
    """Back from contracts."""
    sent: int
    """Sent to anybody else."""
    fees: int
    balance: int

    @property
    def adds_up(self) -> bool:
        return self.received + self.returned == self.funded + self.sent + self.fees + self.balance


class History:
    """All transactions of accounts, proved, newest first; what was read once is kept, only newer ones are fetched."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._known: dict[Address, list[Transaction]] = {}

    async def of(self, address: Address) -> tuple[list[Transaction], NanoTon]:
        """Every transaction of the account and the balance after the newest. Raises ChainUnavailable, BadProof."""
        for _ in range(ATTEMPTS):
            state = await self._chain.account(address)
            known = self._known.get(address, [])
            newest = known[0].lt if known else 0
            fresh = await self._newer_than(address, newest) if state.last_lt > newest else []
            history = fresh + known
            self._known[address] = history
            if (history[0].lt if history else 0) == state.last_lt:
                return history, state.balance
        raise BadProof(f"The transactions of {address} do not reach its state.")

    async def _newer_than(self, address: Address, lt: int) -> list[Transaction]:
        out: list[Transaction] = []
        before: tuple[int, bytes] | None = None
        while True:
            page = await self._chain.transactions(address, PAGE, before)
            for transaction in page:
                if transaction.lt <= lt:
                    return out
                out.append(transaction)
            if not page or page[-1].prev_lt <= lt:
                return out
            before = (page[-1].prev_lt, page[-1].prev_hash)

    def forget(self, address: Address) -> None:
        """Drop what is kept of an account."""
        self._known.pop(address, None)


def fees_of(transaction: Transaction) -> int:
    """Everything that the transaction cost its account, forwarding of its messages included."""
    return transaction.total_fees + sum(m.forward_fee for m in transaction.out_messages)


def contract_account(address: Address, owner: Address, history: list[Transaction], balance: int) -> ContractAccount:
    """Digest a contract's history."""
    funded = returned = rewards = fees = 0
    for transaction in history:
        fees += fees_of(transaction)
        came = transaction.in_message
        if came is not None and came.kind is MessageKind.INTERNAL:
            if came.source == owner:
                funded += came.value
            else:
                rewards -= came.value
        for message in transaction.out_messages:
            if message.destination == owner:
                returned += message.value
            else:
                rewards += message.value
    return ContractAccount(address, funded, returned, rewards, fees, balance)


def wallet_account(history: list[Transaction], balance: int, contracts: Collection[Address]) -> WalletAccount:
    """Digest the wallet's history."""
    received = funded = returned = sent = fees = 0
    for transaction in history:
        fees += fees_of(transaction)
        came = transaction.in_message
        if came is not None and came.kind is MessageKind.INTERNAL:
            if came.source in contracts:
                returned += came.value
            else:
                received += came.value
        for message in transaction.out_messages:
            if message.destination in contracts:
                funded += message.value
            else:
                sent += message.value
    return WalletAccount(received, funded, returned, sent, fees, balance)
