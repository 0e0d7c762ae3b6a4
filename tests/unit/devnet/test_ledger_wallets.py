"""Wallets, transfers, bounces, refusals: real wallet code on the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytoniq_core import Cell, begin_cell
from ton_core import ContractVersion

from tests.fakes.devnet_chain import Wallet, funded_wallet, internal, new_ledger
from tonfs.clock import ManualClock
from tonfs.devnet.ledger import Ledger
from tonfs.errors import BadData, ExternalRefused, NotFound, UsageError
from tonfs.ids import NANO, Address, NanoTon

BOB = Address("0:" + "b0" * 32)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: ManualClock) -> Iterator[Ledger]:
    chain = new_ledger(tmp_path, clock)
    yield chain
    assert chain.coins().ok
    chain.close()


@pytest.mark.parametrize("version", [ContractVersion.WalletV3R2, ContractVersion.WalletV4R2])
def test_a_wallet_deploys_itself_with_its_first_transfer(ledger: Ledger, version: ContractVersion) -> None:
    wallet = funded_wallet(ledger, version=version)
    assert ledger.account(wallet.address).status == "uninit"
    own, transfer = wallet.send(internal(BOB, 5 * NANO, bounce=False))
    assert ledger.account(wallet.address).status == "active"
    assert own.exit_code == 0
    assert own.action_code == 0
    assert not own.aborted
    assert own.out_values == (5 * NANO,)
    assert own.out_destinations == (BOB,)
    assert transfer.account == BOB
    assert transfer.in_source == wallet.address
    assert ledger.account(BOB).balance == 5 * NANO
    spent = 100 * NANO - wallet.balance - 5 * NANO
    assert 0 < spent == ledger.coins().fees < NANO // 100


def test_four_messages_of_one_transfer_are_delivered_in_order(ledger: Ledger) -> None:
    wallet = funded_wallet(ledger)
    people = [Address(f"0:{i:064x}") for i in (4, 3, 2, 1)]
    steps = wallet.send(*(internal(to, (i + 1) * NANO, bounce=False) for i, to in enumerate(people)))
    assert [step.account for step in steps[1:]] == people
    lts = [step.lt for step in steps]
    assert lts == sorted(lts)
    assert [ledger.account(to).balance for to in people] == [NANO, 2 * NANO, 3 * NANO, 4 * NANO]


def test_a_wrong_seqno_is_refused_with_the_contracts_exit_code(ledger: Ledger) -> None:
    wallet = funded_wallet(ledger)
    wallet.send(internal(BOB, NANO))
    with pytest.raises(ExternalRefused, match=r"^cannot apply external message to current state.*exit code 33"):
        ledger.inject_external(wallet.external([internal(BOB, NANO)], seqno=0 + 5))


def test_an_expired_message_is_refused(ledger: Ledger) -> None:
    wallet = funded_wallet(ledger)
    wallet.send(internal(BOB, NANO))
    with pytest.raises(ExternalRefused, match=r"exit code 3[56]"):
        ledger.inject_external(wallet.external([internal(BOB, NANO)], valid_until=ledger.now() - 1))


def test_a_message_to_nobody_is_refused(ledger: Ledger) -> None:
    stranger = Wallet(ledger)
    with pytest.raises(ExternalRefused, match=r"^cannot apply external message"):
        ledger.inject_external(stranger.external([internal(BOB, NANO)]))


def test_a_foreign_signature_is_refused(ledger: Ledger) -> None:
    wallet = funded_wallet(ledger)
    wallet.send(internal(BOB, NANO))
    good = bytearray(wallet.external([internal(BOB, NANO)]))
    good[-60] ^= 1
    with pytest.raises((ExternalRefused, BadData)):
        ledger.inject_external(bytes(good))


@pytest.mark.parametrize("junk", [b"", b"\xb5\xee\x9c\x72", b"hello" * 100, bytes(70_000)])
def test_junk_instead_of_a_message_is_bad_data(ledger: Ledger, junk: bytes) -> None:
    with pytest.raises(BadData):
        ledger.inject_external(junk)


def test_an_internal_message_cannot_be_injected(ledger: Ledger) -> None:
    with pytest.raises(BadData):
        ledger.inject_external(internal(BOB, 10**18).to_boc())


def test_the_same_message_again_is_fine_while_it_waits_and_runs_once(ledger: Ledger) -> None:
    wallet = funded_wallet(ledger)
    boc = wallet.external([internal(BOB, NANO, bounce=False)])
    first = ledger.inject_external(boc)
    for _ in range(3):
        assert ledger.inject_external(boc) == first
    assert ledger.trace(first)[0].transaction is None
    assert ledger.tick().transactions == 2
    assert ledger.account(BOB).balance == NANO
    with pytest.raises(ExternalRefused):
        ledger.inject_external(boc)


def test_two_messages_with_one_seqno_lead_to_one_transfer(ledger: Ledger) -> None:
    wallet = funded_wallet(ledger)
    one = ledger.inject_external(wallet.external([internal(BOB, NANO, bounce=False)]))
    two = ledger.inject_external(wallet.external([internal(BOB, 2 * NANO, bounce=False)]))
    ledger.tick()
    assert ledger.account(BOB).balance == NANO
    assert len(ledger.trace(one)) == 2
    with pytest.raises(NotFound):
        ledger.trace(two)


def test_a_message_to_a_missing_contract_bounces_back(ledger: Ledger) -> None:
    wallet = funded_wallet(ledger)
    own, failed, back = wallet.send(internal(BOB, 3 * NANO, bounce=True))
    assert failed.account == BOB
    assert failed.aborted
    assert failed.exit_code is None
    assert back.account == wallet.address
    assert back.in_bounced
    assert 0 < 3 * NANO - back.in_value < NANO // 1000
    assert ledger.account(BOB).status == "none"
    assert own.seqno == failed.seqno == back.seqno


def test_a_message_whose_body_the_contract_rejects_bounces_back(ledger: Ledger) -> None:
    wallet, other = funded_wallet(ledger), funded_wallet(ledger, "bob")
    other.send(internal(BOB, NANO, bounce=False))
    body = begin_cell().store_uint(0x706C7567, 32).store_uint(0, 64).end_cell()
    own, failed, *rest = wallet.send(internal(other.address, NANO, body))
    assert own.exit_code == 0
    assert failed.account == other.address
    assert not failed.aborted or rest[0].in_bounced


def test_coins_sent_to_the_masterchain_arrive_there(ledger: Ledger) -> None:
    wallet = funded_wallet(ledger)
    there = Address("-1:" + "7e" * 32)
    wallet.send(internal(there, 2 * NANO, bounce=False))
    assert ledger.account(there).balance == 2 * NANO
    assert ledger.last.transactions == 2


def test_a_message_with_an_instant_routing_fee_loses_no_coin(ledger: Ledger) -> None:
    wallet = funded_wallet(ledger)
    wallet.send(internal(BOB, 2 * NANO, bounce=False, flags=0))
    assert ledger.coins().ok
    assert ledger.account(BOB).balance >= 2 * NANO


def test_emptying_a_wallet_with_mode_128_leaves_nothing_but_fees(ledger: Ledger) -> None:
    wallet = funded_wallet(ledger)
    wallet.send(internal(BOB, 0, bounce=False), mode=128)
    assert wallet.balance == 0
    assert ledger.account(BOB).balance + ledger.coins().fees == 100 * NANO


def test_a_wallet_that_destroys_itself_is_gone_and_can_come_back(ledger: Ledger) -> None:
    wallet = funded_wallet(ledger)
    wallet.send(internal(BOB, 0, bounce=False), mode=128 + 32)
    assert ledger.account(wallet.address).status == "none"
    assert wallet.address not in ledger.accounts()
    ledger.faucet(wallet.address, NanoTon(NANO))
    ledger.tick()
    wallet.seqno = 0
    wallet.send(internal(BOB, 1, bounce=False))
    assert ledger.account(wallet.address).status == "active"


def test_rent_is_charged_when_the_clock_is_moved_forward(ledger: Ledger) -> None:
    wallet = funded_wallet(ledger)
    wallet.send(internal(BOB, NANO, bounce=False))
    before = wallet.balance
    ledger.advance(365 * 86400)
    wallet.send(internal(BOB, 1, bounce=False))
    assert before - wallet.balance > 1_000_000


@pytest.mark.parametrize("amount", [0, -1, 10**30])
def test_the_faucet_refuses_impossible_amounts(ledger: Ledger, amount: int) -> None:
    with pytest.raises(UsageError):
        ledger.faucet(BOB, NanoTon(amount))


def test_the_faucet_refuses_an_address_that_is_none(ledger: Ledger) -> None:
    with pytest.raises(UsageError):
        ledger.faucet(Address("EQnonsense"), NanoTon(1))


def test_the_same_gift_twice_is_two_messages(ledger: Ledger) -> None:
    first, second = ledger.faucet(BOB, NanoTon(5)), ledger.faucet(BOB, NanoTon(5))
    assert first != second
    assert ledger.coins().in_flight == 10
    ledger.tick()
    assert ledger.account(BOB).balance == 10


def test_a_full_block_leaves_the_rest_for_the_next(ledger: Ledger) -> None:
    for i in range(300):
        ledger.faucet(Address(f"0:{i:064x}"), NanoTon(7))
    assert ledger.tick().transactions == 256
    assert ledger.coins().in_flight == 44 * 7
    assert ledger.tick().transactions == 44


def test_get_methods_see_the_account_of_the_asked_block(ledger: Ledger) -> None:
    wallet = funded_wallet(ledger)
    wallet.send(internal(BOB, NANO))
    then = ledger.last.seqno
    wallet.send(internal(BOB, NANO))
    now_code, now_stack = ledger.run_get_method(wallet.address, "seqno")
    then_code, then_stack = ledger.run_get_method(wallet.address, "seqno", seqno=then)
    assert (now_code, then_code) == (0, 0)
    assert now_stack != then_stack
    assert ledger.run_get_method(BOB, "seqno") == (-256, b"")
    assert ledger.run_get_method(wallet.address, "no_such_method")[0] == 11


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_tampered_external_is_refused_or_bad_or_the_same_order(
    ledger: Ledger, changes: list[tuple[int, int]]
) -> None:
    wallet = Wallet(ledger, seqno=1)
    if ledger.account(wallet.address).status == "none":
        wallet = funded_wallet(ledger)
        wallet.send(internal(BOB, NANO))
    wallet.seqno = Cell.one_from_boc(ledger.account(wallet.address).data).begin_parse().load_uint(32)
    bad = bytearray(wallet.external([internal(BOB, NANO)]))
    for position, value in changes:
        bad[position % len(bad)] = value
    # The signature covers the order, not the envelope: a change outside it may pass, and then pays what was signed.
    with suppress(ExternalRefused, BadData):
        ledger.inject_external(bytes(bad))
        ledger.tick()
        assert ledger.transactions(wallet.address, 1)[0].out_values in ((NANO,), ())
