"""Coins are neither made nor lost, whatever people do: random transfers, deployments, withdrawals, restarts, jumps."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey
from pytoniq_core import Cell, begin_cell

from tests.fakes.devnet_chain import StorageContract, Wallet, funded_wallet, internal, make_bag, new_ledger
from tonfs.clock import ManualClock
from tonfs.errors import ExternalRefused
from tonfs.ids import NANO, Address, NanoTon

PEOPLE = 3
PROVIDER = SigningKey(b"\x07" * 32)
BAG = make_bag(8)

amounts = st.one_of(st.integers(0, 10**6), st.integers(10**6, 60 * NANO))
transfers = st.tuples(
    st.just("transfer"),
    st.integers(0, PEOPLE - 1),
    st.lists(
        st.tuples(st.integers(-1, PEOPLE + 1), amounts, st.booleans(), st.booleans(), st.integers(0, 3)),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([0, 1, 2, 3, 64, 128, 130, 160, 162]),
)
contracts = st.tuples(
    st.just("contract"), st.integers(0, PEOPLE - 1), st.sampled_from(["deploy", "prove", "withdraw", "junk"]), amounts
)
steps = st.one_of(
    transfers,
    contracts,
    st.tuples(st.just("faucet"), st.integers(0, PEOPLE), amounts),
    st.tuples(st.just("advance"), st.integers(0, 10**9)),
    st.tuples(st.just("tick")),
    st.tuples(st.just("restart")),
)


class Town:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock()
        self.ledger = new_ledger(directory, self.clock)
        self.people = [funded_wallet(self.ledger, f"person {i}", 50) for i in range(PEOPLE)]
        self.issued = 50 * NANO * PEOPLE

    def target(self, number: int) -> Address:
        if number < 0:
            return Address("-1:" + "33" * 32)
        return self.people[number].address if number < PEOPLE else Address(f"0:{number:064x}")

    def send(self, wallet: Wallet, messages: list[object], mode: int = 3) -> None:
        account = self.ledger.account(wallet.address)
        if account.status == "active":
            wallet.seqno = Cell.one_from_boc(account.data).begin_parse().load_uint(32)
        else:
            wallet.seqno = 0
        try:
            self.ledger.inject_external(wallet.external(messages, mode=mode))  # type: ignore[arg-type]
        except ExternalRefused:
            return

    def do(self, step: tuple) -> None:  # type: ignore[type-arg]
        match step:
            case ("transfer", who, items, mode):
                messages = []
                for to, amount, bounce, with_body, flags in items:
                    body = begin_cell().store_bytes(b"hello" * 20).end_cell() if with_body else None
                    messages.append(internal(self.target(to), amount, body, bounce=bounce, flags=flags))
                self.send(self.people[who], messages, mode)
            case ("contract", who, action, amount):
                self.contract(self.people[who], action, amount)
            case ("faucet", to, amount) if amount:
                self.ledger.faucet(self.target(to), NanoTon(amount))
                self.issued += amount
            case ("advance", seconds) if self.ledger.now() + seconds < 1 << 32:
                self.ledger.advance(seconds)
            case ("tick",):
                self.ledger.tick()
            case ("restart",):
                self.ledger.close()
                self.ledger = new_ledger(self.directory, self.clock)
                for wallet in self.people:
                    wallet.ledger = self.ledger

    def contract(self, wallet: Wallet, action: str, amount: int) -> None:
        contract = StorageContract(self.ledger, BAG, wallet.address)
        init = None
        match action:
            case "deploy":
                init, body = contract.init, contract.modify({bytes(PROVIDER.verify_key): (600, 10**12)})
            case "prove" if self.ledger.account(contract.address).status == "active" and contract.providers():
                body = contract.prove(PROVIDER)
            case "withdraw":
                body = contract.withdraw()
            case _:
                body = begin_cell().store_uint(0x48F548CE, 32).end_cell()
        self.send(wallet, [internal(contract.address, amount, body, init)])


@settings(max_examples=80, deadline=None)
@given(plan=st.lists(steps, max_size=12))
def test_issued_is_held_plus_fees_plus_in_flight_after_every_step(plan: list[tuple]) -> None:  # type: ignore[type-arg]
    with tempfile.TemporaryDirectory() as directory:
        town = Town(Path(directory))
        for step in [*plan, ("tick",), ("restart",), ("tick",)]:
            town.do(step)
            coins = town.ledger.coins()
            assert coins.ok
            assert coins.issued == town.issued
            balances = [town.ledger.account(a).balance for a in town.ledger.accounts()]
            # Accounts are read at the last block, coins at this moment; nothing moves between two blocks.
            assert sum(balances) == coins.held
        assert town.ledger.coins().in_flight == 0
        town.ledger.close()
