"""The storage contract's cells against ton-core's own classes; money arithmetic; hostile data."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ton_core import Address as TonAddress
from ton_core.contrib.contracts.storage.tlb import (
    StorageData,
    StorageModifyProvidersBody,
    StorageProofBody,
    StorageProvider,
    StorageProviderInfo,
    StorageWithdrawOwnerBody,
)

from tonfs.bag.boc import to_boc
from tonfs.bag.tree import PieceTree
from tonfs.chain import storage2
from tonfs.chain.api import AccountState, AccountStatus
from tonfs.chain.cells import Builder, Cell, one_cell
from tonfs.chain.codes import code
from tonfs.errors import BadData, NotFound
from tonfs.ids import Address, BagId, NanoTon, ProviderKey

BAG = BagId(b"\x11" * 32)
OWNER = Address("0:" + "0a" * 32)
KEYS = [ProviderKey(bytes([n]) * 32) for n in (1, 2, 0xFE)]


@dataclass(frozen=True)
class Facts:
    bag_id: BagId = BAG
    file_size: int = 5 << 20
    piece_size: int = 131072
    root_hash: bytes = b"\x22" * 32


def account(data: Cell, balance: int = 10**9, code_hash: bytes = storage2.CODE_HASH) -> AccountState:
    cell = code(storage2.CODE_HASH)
    return AccountState(
        Address("0:" + "0" * 64), NanoTon(balance), AccountStatus.ACTIVE, code_hash, cell, data, 1, b"", 1, 1
    )


def their_data(count: int, key_len: int = 6) -> Cell:
    facts = Facts()
    providers = {
        KEYS[n]: StorageProvider(StorageProviderInfo(3600 + n, 1000 + n), next_proof_byte=n, last_proof_time=n, nonce=n)
        for n in range(count)
    }
    data = StorageData(
        facts.bag_id, TonAddress(OWNER), facts.file_size, facts.piece_size, facts.root_hash, providers, key_len
    )
    return one_cell(data.serialize().to_boc())


def test_the_fresh_state_and_the_address_are_what_ton_core_computes() -> None:
    init = storage2.state_init(Facts(), OWNER)
    assert init.refs[1].hash == their_data(0, 0).hash
    assert init.refs[0].hash == storage2.CODE_HASH
    assert storage2.contract_address(Facts(), OWNER) == "0:" + init.hash.hex()


def test_message_bodies_are_what_ton_core_builds() -> None:
    terms = {KEYS[0]: storage2.Terms(3600, 1000), KEYS[2]: storage2.Terms(7200, 5)}
    theirs = StorageModifyProvidersBody(
        {key: StorageProviderInfo(t.max_span, t.rate) for key, t in terms.items()}, query_id=77
    )
    assert storage2.modify_providers(77, terms).hash == theirs.serialize().hash
    assert storage2.modify_providers(1, {}).bits == 97
    assert storage2.withdraw(5).hash == StorageWithdrawOwnerBody(query_id=5).serialize().hash


def test_a_proof_body_is_what_ton_core_builds() -> None:
    tree = PieceTree([bytes([n]) * 32 for n in range(5)])
    proof = tree.proof(3)
    ours = storage2.proof_body(9, KEYS[0], b"\x05" * 64, 1234, proof)
    from ton_core import Cell as TonCell

    theirs = StorageProofBody(KEYS[0], b"\x05" * 64, 1234, TonCell.one_from_boc(proof), query_id=9)
    assert ours.hash == theirs.serialize().hash
    assert storage2.proof_payload(1234, proof).refs[0].hash == one_cell(proof).hash


def test_terms_that_the_contract_refuses_are_refused_before_sending() -> None:
    for terms in (storage2.Terms(0, 1), storage2.Terms(1, 0)):
        with pytest.raises(ValueError, match="0"):
            storage2.modify_providers(1, {KEYS[0]: terms})
    many = {ProviderKey(n.to_bytes(32, "big")): storage2.Terms(1, 1) for n in range(131)}
    with pytest.raises(ValueError, match="131"):
        storage2.modify_providers(1, many)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_state_that_ton_core_writes_is_read(count: int) -> None:
    contract = storage2.read_contract(account(their_data(count)))
    assert (contract.torrent_hash, contract.merkle_hash) == (Facts.bag_id, Facts.root_hash)
    assert contract.owner == OWNER
    assert list(contract.providers) == KEYS[:count]
    for n, entry in enumerate(contract.providers.values()):
        assert entry == storage2.ProviderEntry(n, n, n, 3600 + n, 1000 + n)
    assert contract.available == 10**9 - 5_000_000


def test_available_is_never_negative_and_other_accounts_are_told_apart() -> None:
    assert storage2.parse_storage(their_data(1), 3).available == 0
    with pytest.raises(BadData, match="another contract"):
        storage2.read_contract(account(their_data(1), code_hash=b"\0" * 32))
    empty = AccountState(OWNER, NanoTon(0), AccountStatus.NONE, None, None, None, 0, b"", 1, 1)
    with pytest.raises(NotFound):
        storage2.read_contract(empty)


def test_hostile_data_is_bad_data() -> None:
    good = their_data(2)
    for bad in (Cell(b""), Cell(good.data[:-1], good.refs), Cell(good.data, ()), Cell(good.data, (Cell(b""),))):
        with pytest.raises(BadData):
            storage2.parse_storage(bad, 1)
    bomb = Builder().uint(0, 2).cell()
    for _ in range(255):
        bomb = Builder().uint(0, 2).ref(bomb).ref(bomb).cell()
    with pytest.raises(BadData):
        storage2.parse_storage(Cell(good.data, (bomb,), bits=good.bits), 1)


@given(st.binary(max_size=127), st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_cell_is_a_contract_or_bad_data(data: bytes, child: bytes) -> None:
    with contextlib.suppress(BadData):
        storage2.parse_storage(Cell(data, (Cell(child),)), 1)


def test_the_bounty_is_the_contracts_floor() -> None:
    assert storage2.bounty(1 << 20, 100_000, 86400) == 100_000
    assert storage2.bounty(1, 1, 1) == 0
    assert storage2.bounty((1 << 20) - 1, 1, 86400) == 0
    assert storage2.bounty(10**15, 10**12, 10**9) == 10**36 // (86400 << 20)


@given(st.integers(1, 2**40), st.integers(1, 2**24), st.integers(1, 10**12))
def test_the_lowest_rate_for_a_bounty_reaches_it_and_one_less_does_not(size: int, span: int, wanted: int) -> None:
    rate = storage2.rate_for_bounty(size, span, wanted)
    assert storage2.bounty(size, rate, span) >= wanted
    assert rate == 1 or storage2.bounty(size, rate - 1, span) < wanted


def test_daily_cost_adds_all_providers() -> None:
    contract = storage2.parse_storage(their_data(3), 10**9)
    assert contract.cost_per_day() == 5 * (1000 + 1001 + 1002)
    assert contract.bounty(KEYS[1]) == storage2.bounty(5 << 20, 1001, 3601)


def test_our_boc_of_the_code_is_accepted_again() -> None:
    assert one_cell(to_boc(code(storage2.CODE_HASH))).hash == storage2.CODE_HASH
