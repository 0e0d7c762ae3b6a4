"""The generation-2 storage contract's real code on the ledger; figures from reference contracts 4.2, 6.5 and 8."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from nacl.signing import SigningKey
from pytoniq_core import Cell, Transaction
from pytoniq_core.tlb.vm_stack import VmStack
from ton_core import ContractVersion

from tests.fakes.devnet_chain import (
    STORAGE_CODE_HASH,
    StorageContract,
    Wallet,
    code,
    funded_wallet,
    internal,
    make_bag,
    new_ledger,
)
from tonfs.clock import ManualClock
from tonfs.devnet.chain_api import TransactionInfo
from tonfs.devnet.ledger import Ledger
from tonfs.ids import NANO

KEYS = [SigningKey(sha256(name).digest()) for name in (b"provider 1", b"provider 2")]
PUBLIC = [bytes(key.verify_key) for key in KEYS]
SPAN = 3600
RATE = 40 * NANO
DEPOSIT = NANO


def gas_of(info: TransactionInfo) -> int:
    transaction = Transaction.deserialize(Cell.one_from_boc(info.boc).begin_parse())
    gas: int = transaction.description.compute_ph.gas_used
    return gas


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: ManualClock) -> Iterator[Ledger]:
    chain = new_ledger(tmp_path, clock)
    yield chain
    assert chain.coins().ok
    chain.close()


@pytest.fixture
def owner(ledger: Ledger) -> Wallet:
    return funded_wallet(ledger)


@pytest.fixture
def relay(ledger: Ledger) -> Wallet:
    return funded_wallet(ledger, "provider", 5, version=ContractVersion.WalletV3R2)


@pytest.fixture
def contract(ledger: Ledger, owner: Wallet) -> StorageContract:
    """Deployed by its owner with two providers and one TON."""
    contract = StorageContract(ledger, make_bag(), owner.address)
    body = contract.modify(dict.fromkeys(PUBLIC, (SPAN, RATE)))
    _, deployed = owner.send(internal(contract.address, DEPOSIT, body, contract.init))
    assert (deployed.exit_code, deployed.action_code, deployed.aborted) == (0, 0, False)
    return contract


def bounty(contract: StorageContract, span: int) -> int:
    return contract.bag.size * RATE * span // (86400 << 20)


def test_the_code_is_the_published_one() -> None:
    assert code(ContractVersion.StorageContract).hash.hex() == STORAGE_CODE_HASH


def test_the_owner_deploys_with_two_providers(ledger: Ledger, contract: StorageContract) -> None:
    deployed = ledger.transactions(contract.address)[0]
    assert gas_of(deployed) == 11019
    assert deployed.total_fees == pytest.approx(4_400_000, abs=50_000)
    account = ledger.account(contract.address)
    assert account.code_hash.hex() == STORAGE_CODE_HASH
    assert account.balance == DEPOSIT - deployed.total_fees
    entries = contract.providers()
    assert set(entries) == set(PUBLIC)
    for entry in entries.values():
        assert (entry.max_span, entry.rate, entry.last_proof_time) == (SPAN, RATE, 0)
        assert 0 <= entry.next_proof_byte < contract.bag.size
    assert len({entry.nonce for entry in entries.values()}) == 2


def test_get_methods_say_what_the_data_says(ledger: Ledger, contract: StorageContract) -> None:
    exit_code, stack = ledger.run_get_method(contract.address, "get_storage_info")
    assert exit_code == 0
    bag_id, size, piece_size, _, root = VmStack.deserialize(Cell.one_from_boc(stack).begin_parse())
    assert bag_id == int.from_bytes(contract.bag.bag_id, "big")
    assert (size, piece_size) == (contract.bag.size, 1024)
    assert root == int.from_bytes(contract.bag.tree.hash, "big")
    _, stack = ledger.run_get_method(contract.address, "get_available_balance")
    (available,) = VmStack.deserialize(Cell.one_from_boc(stack).begin_parse())
    assert available == ledger.account(contract.address).balance - 5_000_000
    argument = VmStack.serialize([int.from_bytes(PUBLIC[0], "big")]).to_boc()
    exit_code, stack = ledger.run_get_method(contract.address, "get_provider_info", argument)
    entry = contract.providers()[PUBLIC[0]]
    values = VmStack.deserialize(Cell.one_from_boc(stack).begin_parse())
    assert exit_code == 0
    assert values == [entry.nonce, 0, entry.next_proof_byte, SPAN, RATE, available]
    unknown = VmStack.serialize([12345]).to_boc()
    assert ledger.run_get_method(contract.address, "get_provider_info", unknown)[0] == 404


def test_the_balance_of_a_rich_contract_is_not_truncated(ledger: Ledger, owner: Wallet) -> None:
    contract = StorageContract(ledger, make_bag(), owner.address)
    owner.send(internal(contract.address, 50 * NANO, contract.modify({PUBLIC[0]: (SPAN, RATE)}), contract.init))
    _, stack = ledger.run_get_method(contract.address, "get_available_balance")
    (available,) = VmStack.deserialize(Cell.one_from_boc(stack).begin_parse())
    assert available > 49 * NANO


def test_a_stranger_cannot_name_providers(ledger: Ledger, contract: StorageContract) -> None:
    stranger = funded_wallet(ledger, "mallory")
    _, failed, bounced = stranger.send(internal(contract.address, NANO, contract.modify({})))
    assert failed.exit_code == 401
    assert bounced.in_bounced
    assert set(contract.providers()) == set(PUBLIC)


def test_the_first_proof_pays_a_full_span(ledger: Ledger, contract: StorageContract, relay: Wallet) -> None:
    before = ledger.account(contract.address).balance
    own, proved, reward = relay.send(internal(contract.address, 50_000_000, contract.prove(KEYS[0])))
    assert own.exit_code == 0
    assert proved.exit_code == 0
    assert proved.action_code == 0
    assert gas_of(proved) == pytest.approx(10884, abs=200)
    assert 0 < bounty(contract, SPAN) < DEPOSIT
    assert ledger.account(contract.address).balance == before - bounty(contract, SPAN)
    assert reward.opcode == 0xA91BAF56
    assert reward.account == relay.address
    spent = bounty(contract, SPAN) + 50_000_000 - reward.in_value
    assert 4_000_000 < spent < 5_200_000
    assert contract.providers()[PUBLIC[0]].last_proof_time == proved.utime == ledger.last.gen_utime
    assert contract.providers()[PUBLIC[1]].last_proof_time == 0


def test_later_proofs_pay_for_the_time_between(
    ledger: Ledger, contract: StorageContract, relay: Wallet, clock: ManualClock
) -> None:
    relay.send(internal(contract.address, 50_000_000, contract.prove(KEYS[0])))
    clock.advance(SPAN // 2)
    before = ledger.account(contract.address).balance
    relay.send(internal(contract.address, 50_000_000, contract.prove(KEYS[0])))
    rent = ledger.transactions(contract.address)[0]
    paid = before - ledger.account(contract.address).balance
    assert bounty(contract, SPAN // 2) <= paid < bounty(contract, SPAN // 2) + 10_000
    assert rent.exit_code == 0


def test_a_replayed_proof_is_refused(ledger: Ledger, contract: StorageContract, relay: Wallet) -> None:
    body = contract.prove(KEYS[0])
    relay.send(internal(contract.address, 50_000_000, body))
    _, replayed, bounced = relay.send(internal(contract.address, 50_000_000, body))
    assert replayed.exit_code == 401
    assert replayed.aborted
    assert bounced.in_bounced


def test_a_proof_of_another_piece_is_refused(contract: StorageContract, relay: Wallet) -> None:
    wanted = contract.providers()[PUBLIC[0]].next_proof_byte // 1024
    body = contract.prove(KEYS[0], piece=(wanted + 1) % 64)
    _, failed, _ = relay.send(internal(contract.address, 50_000_000, body))
    assert failed.exit_code == 9


def test_a_provider_that_is_left_out_is_removed_and_the_other_keeps_its_state(
    contract: StorageContract, owner: Wallet, relay: Wallet
) -> None:
    relay.send(internal(contract.address, 50_000_000, contract.prove(KEYS[0])))
    kept = contract.providers()[PUBLIC[0]]
    _, changed = owner.send(internal(contract.address, 30_000_000, contract.modify({PUBLIC[0]: (SPAN, RATE)})))
    assert changed.exit_code == 0
    assert contract.providers() == {PUBLIC[0]: kept}
    owner.send(internal(contract.address, 30_000_000, contract.modify({})))
    assert contract.providers() == {}


def test_the_owner_gets_everything_back_but_the_reserve(
    ledger: Ledger, contract: StorageContract, owner: Wallet
) -> None:
    before = ledger.account(contract.address).balance
    _, withdrawn, refund = owner.send(internal(contract.address, 30_000_000, contract.withdraw()))
    assert gas_of(withdrawn) == 3761
    assert ledger.account(contract.address).balance == 5_000_000
    assert refund.opcode == 0xB6236D63
    assert refund.account == owner.address
    assert withdrawn.total_fees == pytest.approx(1_700_000, abs=10_000)
    fees = before - 5_000_000 + 30_000_000 - refund.in_value
    assert withdrawn.total_fees < fees < 2_100_000  # the rest is the refund's own forward fee
    assert set(contract.providers()) == set(PUBLIC)


def test_a_stranger_cannot_withdraw(ledger: Ledger, contract: StorageContract) -> None:
    stranger = funded_wallet(ledger, "mallory")
    _, failed, _ = stranger.send(internal(contract.address, 30_000_000, contract.withdraw()))
    assert failed.exit_code == 401


def test_the_same_seed_asks_for_the_same_pieces(tmp_path: Path) -> None:
    seen = []
    for name, seed in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        ledger = new_ledger(tmp_path / name, seed=seed)
        owner = funded_wallet(ledger)
        contract = StorageContract(ledger, make_bag(), owner.address)
        owner.send(internal(contract.address, NANO, contract.modify({PUBLIC[0]: (SPAN, RATE)}), contract.init))
        seen.append((contract.providers()[PUBLIC[0]], ledger.last.master))
        ledger.close()
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]
