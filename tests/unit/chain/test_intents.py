"""The treasurer on the real contracts (devnet ledger, autojump time): what is paid, refused, lost, waited for."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.fakes.ledger_chain import LedgerChain, ledger_chain
from tonfs.bag.boc import Cell
from tonfs.chain import storage2
from tonfs.chain.api import AccountStatus, Transaction
from tonfs.chain.cells import Builder, one_cell, to_boc
from tonfs.chain.intents import LIFE, BudgetCheck, IntentResult, IntentState, Treasurer, _match
from tonfs.chain.journal import Journal, new_query_id
from tonfs.chain.messages import Message, comment, parse_message
from tonfs.chain.wallet import Wallet
from tonfs.clock import ManualClock
from tonfs.errors import BadProof, ChainUnavailable, Damaged, InsufficientCoins, IntentFailed, Refused
from tonfs.ids import NANO, Address, BagId, NanoTon, ProviderKey

WALLET = Wallet.from_seed(b"w" * 32, "v4r2")
BOB = Address("0:" + "b0" * 32)
CAROL = Address("0:" + "ca" * 32)
BAG = BagId(b"\x11" * 32)
PROVIDER = ProviderKey(b"\x01" * 32)


@dataclass(frozen=True)
class Facts:
    bag_id: BagId = BAG
    file_size: int = 32 << 20
    piece_size: int = 131072
    root_hash: bytes = b"\x22" * 32


CONTRACT = storage2.contract_address(Facts(), WALLET.address)
TERMS = storage2.Terms(86400, 100_000)


def open_contract(value: int = NANO, terms: dict[ProviderKey, storage2.Terms] | None = None) -> Message:
    body = storage2.modify_providers(new_query_id(), {PROVIDER: TERMS} if terms is None else terms)
    return Message(CONTRACT, NanoTon(value), body, storage2.state_init(Facts(), WALLET.address))


def withdrawal() -> Message:
    return Message(CONTRACT, storage2.WITHDRAW_VALUE, storage2.withdraw(new_query_id()))


def transfer(to: Address, amount: int, text: str = "") -> Message:
    return Message(to, NanoTon(amount), comment(text) if text else None, bounce=False)


@dataclass
class Desk:
    """A treasurer, its chain and its database."""

    chain: LedgerChain
    conn: sqlite3.Connection
    treasurer: Treasurer

    async def balance(self, address: Address = WALLET.address) -> int:
        return (await self.chain.account(address)).balance

    async def seqno(self) -> int:
        return WALLET.seqno(await self.chain.account(WALLET.address))

    async def got(self, address: Address) -> list[int]:
        """Values of all messages that reached an account, oldest first."""
        found = await self.chain.transactions(address, 100)
        return [t.in_message.value for t in reversed(found) if t.in_message is not None]


@asynccontextmanager
async def desk(path: Path, tons: int = 20, budget: BudgetCheck | None = None) -> AsyncIterator[Desk]:
    async with ledger_chain(path) as chain:
        if tons:
            await chain.give(WALLET.address, tons * NANO)
        conn = sqlite3.connect(path / "agent.db", isolation_level=None)
        treasurer = Treasurer(chain, WALLET, conn, ManualClock(base=trio.current_time), budget_check=budget)
        yield Desk(chain, conn, treasurer)
        conn.close()


async def test_a_transfer_is_confirmed_by_the_receivers_transaction(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with desk(tmp_path) as d:
        result = await d.treasurer.execute("send", BOB, [transfer(BOB, NANO, "hello")], "a present")
        assert result.confirmed
        assert result.check() is result
        assert await d.got(BOB) == [NANO]
        assert await d.seqno() == 1
        assert d.treasurer.committed() == 0
        second = await d.treasurer.execute("send", BOB, [transfer(BOB, NANO)], "another")
        assert second.id != result.id
        assert await d.got(BOB) == [NANO, NANO]


async def test_a_contract_is_opened_used_and_emptied_with_everything_seen_on_chain(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with desk(tmp_path) as d:
        opened = await d.treasurer.execute("open", CONTRACT, [open_contract()], "hire one", bag_id=BAG)
        assert opened.confirmed
        assert (opened.exit_code, opened.action_code, opened.amount) == (0, 0, NANO)
        contract = storage2.read_contract(await d.chain.account(CONTRACT))
        assert contract.providers[PROVIDER].terms == TERMS
        before = await d.balance()
        closed = await d.treasurer.execute(
            "close", CONTRACT, [open_contract(NANO // 50, {}), withdrawal()], "bag deleted", bag_id=BAG
        )
        assert closed.confirmed
        assert closed.returned > NANO * 9 // 10
        assert closed.returned - closed.amount - (await d.balance() - before) < NANO // 50
        contract = storage2.read_contract(await d.chain.account(CONTRACT))
        assert (contract.providers, contract.available) == ({}, 0)


async def test_a_refusal_of_the_contract_is_a_failure_and_the_coins_are_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with desk(tmp_path) as d:
        foreign = storage2.state_init(Facts(), BOB)
        address = storage2.contract_address(Facts(), BOB)
        body = storage2.modify_providers(1, {PROVIDER: TERMS})
        result = await d.treasurer.execute(
            "open", address, [Message(address, NanoTon(NANO), body, foreign)], "not mine"
        )
        assert result.state is IntentState.FAILED
        assert result.exit_code == 401
        assert NANO * 98 // 100 < result.returned < NANO
        assert await d.balance() > 19 * NANO + NANO * 9 // 10
        with pytest.raises(IntentFailed, match="401"):
            result.check()


async def test_a_bounce_from_an_account_that_does_not_exist_is_a_failure(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with desk(tmp_path) as d:
        result = await d.treasurer.execute("send", CAROL, [Message(CAROL, NanoTon(NANO))], "nobody there")
        assert result.state is IntentState.FAILED
        assert "no contract" in result.detail
        assert result.returned > NANO * 9 // 10
        assert (await d.chain.account(CAROL)).status is AccountStatus.NONE


async def test_without_coins_nothing_is_signed(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with desk(tmp_path, tons=1) as d:
        with pytest.raises(InsufficientCoins, match="holds 1"):
            await d.treasurer.execute("send", BOB, [transfer(BOB, NANO)], "too much")
        assert d.treasurer.open_intents() == []
        assert d.chain.sent == []


async def test_an_empty_wallet_cannot_pay(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with desk(tmp_path, tons=0) as d:
        with pytest.raises(InsufficientCoins):
            await d.treasurer.execute("send", BOB, [transfer(BOB, 1)], "empty wallet")


async def test_the_budget_is_asked_before_an_intent_exists(tmp_path: Path, autojump_clock: MockClock) -> None:
    asked: list[tuple[int, str]] = []

    def budget(amount: int, reason: str) -> None:
        asked.append((amount, reason))
        if amount > NANO:
            raise Refused("Over budget.")

    async with desk(tmp_path, budget=budget) as d:
        with pytest.raises(Refused, match="budget"):
            await d.treasurer.execute("send", BOB, [transfer(BOB, NANO + 1)], "big")
        assert d.conn.execute("SELECT count(*) FROM intent").fetchone() == (0,)
        assert (await d.treasurer.execute("send", BOB, [transfer(BOB, NANO)], "small")).confirmed
        assert asked == [(NANO + 1, "big"), (NANO, "small")]


async def test_many_intents_at_once_share_externals_and_each_is_paid_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with desk(tmp_path) as d:
        results: list[IntentResult] = []

        async def one(number: int) -> None:
            message = transfer(BOB, 1000 + number, f"number {number}")
            results.append(await d.treasurer.execute("send", BOB, [message], f"number {number}"))

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(one, number)
        assert all(result.confirmed for result in results)
        assert sorted(await d.got(BOB)) == [1000 + n for n in range(10)]
        assert await d.seqno() <= 4


async def test_equal_messages_are_told_apart(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with desk(tmp_path) as d:
        result = await d.treasurer.execute("send", BOB, [transfer(BOB, 5), transfer(BOB, 5)], "twice on purpose")
        assert result.confirmed
        assert await d.got(BOB) == [5, 5]


def test_of_equal_messages_that_the_wallet_skipped_one_is_missing(tmp_path: Path) -> None:
    conn = sqlite3.connect(tmp_path / "agent.db", isolation_level=None)
    journal = Journal(conn, WALLET.address)
    for messages in ([transfer(BOB, 5), transfer(BOB, 5)], [transfer(CAROL, 6)]):
        journal.plan("send", BOB, messages, "x", 5, bag_id=None, key=None, planned_at=1, created=0.0)
    first, second = journal.planned()
    bob, carol = parse_message(transfer(BOB, 5).cell()), parse_message(transfer(CAROL, 6).cell())
    assert _match([first, second], [bob, bob, carol]) == {first.id: [bob, bob], second.id: [carol]}
    assert _match([first, second], [bob, carol]) == {first.id: [bob, None], second.id: [carol]}
    assert _match([first, second], []) == {first.id: [None, None], second.id: [None]}
    conn.close()


async def test_a_message_that_the_wallet_could_not_pay_for_is_a_failure(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with desk(tmp_path, tons=3) as d:
        big = Message(BOB, NanoTon(2 * NANO + NANO // 2), bounce=False)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _drain() -> None:
                # Somebody else with the same words empties the wallet while ours is being decided.
                state = await d.chain.account(WALLET.address)
                signed = WALLET.sign(0, state.now + 60, [transfer(CAROL, 2 * NANO)])
                d.chain.ledger.inject_external(signed.boc)
                await d.chain.wait_block()

            with pytest.raises(InsufficientCoins):
                await d.treasurer.execute("send", BOB, [big], "more than is left")
        assert await d.got(BOB) == []


async def test_a_lost_external_is_signed_again_only_after_it_can_never_run(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with desk(tmp_path) as d:
        d.chain.lose = LIFE // 2 + 5
        start = await d.chain.now()
        result = await d.treasurer.execute("send", BOB, [transfer(BOB, NANO)], "lost at first")
        assert result.confirmed
        assert await d.chain.now() - start >= LIFE
        assert await d.got(BOB) == [NANO]
        boc = dict.fromkeys(d.chain.sent)
        assert len(boc) == 2
        states = [row[0] for row in d.conn.execute("SELECT state FROM external ORDER BY id")]
        assert states == ["dead", "landed"]


async def test_an_external_that_is_always_refused_expires_without_paying(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with desk(tmp_path) as d:
        d.chain.refuse = True
        result = await d.treasurer.execute("send", BOB, [transfer(BOB, NANO)], "refused")
        assert result.state is IntentState.EXPIRED
        assert "in time" in result.detail
        assert await d.got(BOB) == []
        assert await d.balance() == 20 * NANO
        assert len(set(d.chain.sent)) == 5


async def test_another_external_of_the_same_wallet_makes_ours_be_signed_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with desk(tmp_path) as d:
        await d.treasurer.execute("send", BOB, [transfer(BOB, 1)], "deploys the wallet")
        d.chain.lose = 1
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _other_device() -> None:
                await d.chain.wait_block()
                state = await d.chain.account(WALLET.address)
                d.chain.ledger.inject_external(WALLET.sign(1, state.now + 60, [transfer(CAROL, 7)]).boc)

            d.chain.refuse = True
            nursery.start_soon(_after, 3.0, d.chain)
            result = await d.treasurer.execute("send", BOB, [transfer(BOB, 2)], "meets another device")
        assert result.confirmed
        assert await d.got(BOB) == [1, 2]
        assert await d.got(CAROL) == [7]
        details = [row[0] for row in d.conn.execute("SELECT state FROM external ORDER BY id")]
        assert details == ["landed", "dead", "landed"]


class Relay(LedgerChain):
    """Hands every external on in an envelope of its own: same signed body, another import fee, so another hash."""

    async def send_boc(self, boc: bytes) -> None:
        body = parse_message(one_cell(boc)).body
        envelope = Builder().uint(0b10, 2).address(None).address(WALLET.address).coins(1)
        await super().send_boc(to_boc(envelope.bit(False).bit(True).ref(body).cell()))


async def test_a_stranger_who_puts_our_signed_order_into_another_envelope_does_not_make_us_pay_twice(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with ledger_chain(tmp_path, kind=Relay) as chain:
        await chain.give(WALLET.address, 20 * NANO)
        chain.ledger.inject_external(WALLET.sign(0, await chain.now() + LIFE, []).boc)  # deploys the wallet
        await chain.wait_block()
        conn = sqlite3.connect(tmp_path / "agent.db", isolation_level=None)
        treasurer = Treasurer(chain, WALLET, conn, ManualClock(base=trio.current_time))
        result = await treasurer.execute("send", BOB, [transfer(BOB, NANO)], "once")
        assert result.confirmed
        assert [t.in_message.value for t in await chain.transactions(BOB) if t.in_message is not None] == [NANO]
        assert conn.execute("SELECT state FROM external").fetchall() == [("landed",)]
        conn.close()


class Behind(LedgerChain):
    """Account states are those of now; who asks for the newest transactions meets a server that lacks the last one."""

    behind = 0

    async def transactions(
        self, address: Address, limit: int = 16, before: tuple[int, bytes] | None = None
    ) -> list[Transaction]:
        found = await super().transactions(address, limit, before)
        if before is None and self.behind:
            self.behind -= 1
            return found[1:]
        return found


async def test_a_server_that_lags_behind_the_one_asked_before_does_not_make_us_pay_twice(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with ledger_chain(tmp_path, kind=Behind) as chain:
        assert isinstance(chain, Behind)
        await chain.give(WALLET.address, 20 * NANO)
        conn = sqlite3.connect(tmp_path / "agent.db", isolation_level=None)
        treasurer = Treasurer(chain, WALLET, conn, ManualClock(base=trio.current_time))
        chain.behind = 3
        assert (await treasurer.execute("send", BOB, [transfer(BOB, NANO)], "once")).confirmed
        assert [t.in_message.value for t in await chain.transactions(BOB) if t.in_message is not None] == [NANO]
        assert conn.execute("SELECT state FROM external").fetchall() == [("landed",)]
        conn.close()


async def _after(seconds: float, chain: LedgerChain) -> None:
    await trio.sleep(seconds)
    chain.refuse = False


async def test_a_jump_of_the_chain_clock_kills_an_external_and_nothing_is_paid_twice(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with desk(tmp_path) as d:
        d.chain.lose = 1
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _jump() -> None:
                await d.chain.wait_block()
                d.chain.advance(30 * 86400)

            assert (await d.treasurer.execute("send", BOB, [transfer(BOB, NANO)], "across a month")).confirmed
        assert await d.got(BOB) == [NANO]


async def test_an_unreachable_chain_before_signing_raises_and_leaves_nothing_open(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with desk(tmp_path) as d:
        d.chain.offline = True
        with pytest.raises(ChainUnavailable):
            await d.treasurer.execute("send", BOB, [transfer(BOB, NANO)], "offline")
        assert d.treasurer.open_intents() == []


async def test_once_signed_it_waits_for_the_chain_to_come_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with desk(tmp_path) as d:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _outage() -> None:
                await trio.sleep(0.5)
                assert d.chain.sent
                d.chain.offline = True
                await trio.sleep(500)
                assert len(d.treasurer.open_intents()) == 1
                d.chain.offline = False

            result = await d.treasurer.execute("send", BOB, [transfer(BOB, NANO)], "through an outage")
        assert result.confirmed
        assert await d.got(BOB) == [NANO]


async def test_cancelled_before_signing_withdraws_and_after_signing_is_recovered(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with desk(tmp_path) as d:
        with trio.CancelScope() as scope:
            scope.cancel()
            await d.treasurer.execute("send", BOB, [transfer(BOB, 1)], "never")
        assert d.treasurer.open_intents() == []
        with trio.move_on_after(0.5) as scope:
            await d.treasurer.execute("send", BOB, [transfer(BOB, 2)], "signed, then left")
        assert scope.cancelled_caught
        [intent] = d.treasurer.open_intents()
        assert intent.state is IntentState.SENT
        [result] = await d.treasurer.recover()
        assert (result.id, result.confirmed) == (intent.id, True)
        assert await d.got(BOB) == [2]
        assert await d.treasurer.recover() == []


async def test_the_same_key_is_executed_once_also_after_a_restart(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with desk(tmp_path) as d:
        first = await d.treasurer.execute("open", CONTRACT, [open_contract()], "once", key="open bag 1")
        again = await d.treasurer.execute("open", CONTRACT, [open_contract()], "once", key="open bag 1")
        assert again == first
        other = Treasurer(d.chain, WALLET, d.conn, ManualClock())
        assert await other.execute("open", CONTRACT, [open_contract()], "once", key="open bag 1") == first
        assert await d.seqno() == 1


async def test_recover_needs_the_chain_and_says_so(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with desk(tmp_path) as d:
        with trio.move_on_after(0.5):
            await d.treasurer.execute("send", BOB, [transfer(BOB, 2)], "left open")
        d.chain.offline = True
        with pytest.raises(ChainUnavailable):
            await d.treasurer.recover()
        d.chain.offline = False
        assert [r.confirmed for r in await d.treasurer.recover()] == [True]


async def test_a_plan_that_became_stale_while_nobody_ran_is_not_paid(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with desk(tmp_path) as d:
        journal = Journal(d.conn, WALLET.address)
        now = await d.chain.now()
        journal.plan("send", BOB, [transfer(BOB, 1)], "old", 1, bag_id=None, key=None, planned_at=now, created=0.0)
        d.chain.advance(7200)
        journal.plan(
            "send", BOB, [transfer(BOB, 2)], "new", 2, bag_id=None, key=None, planned_at=now + 7200, created=0.0
        )
        results = await d.treasurer.recover()
        assert [r.state for r in results] == [IntentState.EXPIRED, IntentState.CONFIRMED]
        assert await d.got(BOB) == [2]


async def test_a_stale_plan_that_another_task_signs_meanwhile_is_followed_to_its_end(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path) as d:
        journal = Journal(d.conn, WALLET.address)
        old = await d.chain.now()
        journal.plan("send", BOB, [transfer(BOB, 1)], "old", 1, bag_id=None, key=None, planned_at=old, created=0.0)
        d.chain.advance(7200)

        async def now() -> int:
            if planned := journal.planned():
                journal.sign(planned, WALLET.sign(0, d.chain.ledger.last.gen_utime + LIFE, planned[0].messages), 0, 0.0)
            return d.chain.ledger.last.gen_utime

        monkeypatch.setattr(d.chain, "now", now)
        assert [r.state for r in await d.treasurer.recover()] == [IntentState.CONFIRMED]
        assert await d.got(BOB) == [1]


async def test_recover_gives_up_what_the_wallet_can_no_longer_pay(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with desk(tmp_path, tons=1) as d:
        journal = Journal(d.conn, WALLET.address)
        now = await d.chain.now()
        journal.plan("send", BOB, [transfer(BOB, NANO)], "x", NANO, bag_id=None, key=None, planned_at=now, created=0.0)
        [result] = await d.treasurer.recover()
        assert result.state is IntentState.FAILED
        assert "holds" in result.detail


async def test_a_wallet_that_runs_other_code_is_refused(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path) as d:
        await d.treasurer.execute("send", BOB, [transfer(BOB, 1)], "deploys the wallet")
        monkeypatch.setattr("tonfs.chain.wallet._CODES", {WALLET.version: b"\0" * 32})
        with pytest.raises(Refused, match="cannot be used"):
            await d.treasurer.execute("send", BOB, [transfer(BOB, 1)], "other code")


async def test_a_lying_server_before_signing_raises(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path) as d:

        async def lie(_address: Address) -> None:
            raise BadProof("lies")

        monkeypatch.setattr(d.chain, "account", lie)
        with pytest.raises(BadProof):
            await d.treasurer.execute("send", BOB, [transfer(BOB, 1)], "lied to")
        assert d.treasurer.open_intents() == []


def test_the_journal_is_durable_and_knows_its_version(tmp_path: Path) -> None:
    conn = sqlite3.connect(tmp_path / "agent.db", isolation_level=None)
    conn.execute("PRAGMA journal_mode=WAL")
    conn.execute("PRAGMA synchronous=NORMAL")
    Journal(conn, WALLET.address)
    assert conn.execute("PRAGMA synchronous").fetchone() == (2,)
    conn.execute("UPDATE journal_version SET version = 9")
    with pytest.raises(Damaged, match="format 9"):
        Journal(conn, WALLET.address)
    conn.close()


def test_the_database_itself_forbids_two_externals_in_flight(tmp_path: Path) -> None:
    conn = sqlite3.connect(tmp_path / "agent.db", isolation_level=None)
    journal = Journal(conn, WALLET.address)
    for _ in range(2):
        journal.plan("send", BOB, [transfer(BOB, 1)], "x", 1, bag_id=None, key=None, planned_at=1, created=0.0)
    first, second = journal.planned()
    journal.sign([first], WALLET.sign(0, 10, first.messages), 0, 0.0)
    with pytest.raises(sqlite3.IntegrityError):
        journal.sign([second], WALLET.sign(0, 11, second.messages), 0, 0.0)
    assert journal.intent(second.id).state is IntentState.PLANNED
    assert journal.committed() == 2
    conn.close()


def test_messages_survive_the_journal_cell_by_cell(tmp_path: Path) -> None:
    conn = sqlite3.connect(tmp_path / "agent.db")
    journal = Journal(conn, WALLET.address)
    original = open_contract()
    number = journal.plan("open", CONTRACT, [original, transfer(BOB, 3)], "why", 5, bag_id=BAG, key="k", planned_at=7,
                          created=0.0)  # fmt: skip
    intent = journal.intent(number)
    assert [m.cell().hash for m in intent.messages] == [original.cell().hash, transfer(BOB, 3).cell().hash]
    assert (intent.bag_id, intent.key, intent.planned_at, intent.amount) == (BAG, "k", 7, 5)
    row = conn.execute("SELECT query_id FROM intent").fetchone()
    body = original.body
    assert isinstance(body, Cell)
    assert row == (str(int.from_bytes(body.data[4:12], "big")),)
    conn.close()
