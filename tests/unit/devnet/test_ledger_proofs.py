"""Every answer's proof, checked by the client library's own checkers."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Address as TlbAddress
from pytoniq_core import Cell, Slice, Transaction
from pytoniq_core.boc.exotic import CellTypes
from pytoniq_core.proof.check_proof import (
    ProofError,
    check_account_proof,
    check_block_header_proof,
    check_proof,
    check_shard_proof,
)
from pytoniq_core.tl.block import BlockIdExt
from pytoniq_core.tlb.block import BinTree, Block, ShardDescr, ShardStateUnsplit
from pytoniq_core.tlb.utils import deserialize_shard_hashes

from tests.fakes.devnet_chain import Wallet, funded_wallet, internal, new_ledger
from tonfs.clock import ManualClock
from tonfs.devnet.accounts_dict import read_label
from tonfs.devnet.cells import Cell as OwnCell
from tonfs.devnet.chain_api import WHOLE_SHARD, AccountId, BlockId
from tonfs.devnet.ledger import Ledger
from tonfs.devnet.tlb import read_account
from tonfs.errors import BadData, BlockUnknown
from tonfs.ids import NANO, Address, NanoTon

BOB = Address("0:" + "b0" * 32)


def tl(block: BlockId) -> BlockIdExt:
    return BlockIdExt(block.workchain, block.shard, block.seqno, block.root_hash, block.file_hash)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: ManualClock) -> Iterator[Ledger]:
    chain = new_ledger(tmp_path, clock)
    yield chain
    chain.close()


@pytest.fixture
def wallet(ledger: Ledger) -> Wallet:
    """Active, with neighbours in the dictionary and a history."""
    for i in range(40):
        ledger.faucet(Address("0:" + sha256(b"%d" % i).hexdigest()), NanoTon(NANO))
    wallet = funded_wallet(ledger)
    for i in range(3):
        wallet.send(internal(BOB, NANO, bounce=False), internal(Address("0:" + f"{i}" * 64), NANO))
    return wallet


def prove_account(ledger: Ledger, block: BlockId, address: Address) -> Cell:
    answer = ledger.account_answer(block, AccountId.parse(address))
    assert answer.id == block
    check_shard_proof(answer.shard_proof, tl(block), tl(answer.shardblk))
    state = Cell.one_from_boc(answer.state)
    descr = check_account_proof(answer.proof, tl(answer.shardblk), TlbAddress(address), state, True)
    assert descr.last_trans_lt == ledger.account(address, block.seqno).last_lt
    assert descr.last_trans_hash == ledger.account(address, block.seqno).last_hash
    return state


def test_accounts_are_proved_active_and_uninit(ledger: Ledger, wallet: Wallet) -> None:
    for address in (wallet.address, BOB):
        assert prove_account(ledger, ledger.last.master, address).refs or address == BOB


def test_a_lonely_account_is_proved(ledger: Ledger) -> None:
    ledger.faucet(BOB, NanoTon(7))
    ledger.tick()
    prove_account(ledger, ledger.last.master, BOB)


def test_a_masterchain_account_is_proved_by_the_masterchain_block(ledger: Ledger, wallet: Wallet) -> None:
    there = Address("-1:" + "7e" * 32)
    wallet.send(internal(there, NANO, bounce=False))
    answer = ledger.account_answer(ledger.last.master, AccountId.parse(there))
    assert answer.shardblk == ledger.last.master
    check_account_proof(answer.proof, tl(answer.shardblk), TlbAddress(there), Cell.one_from_boc(answer.state))


def test_siblings_config_and_the_account_itself_are_cut(ledger: Ledger, wallet: Wallet) -> None:
    answer = ledger.account_answer(ledger.last.master, AccountId.parse(wallet.address))
    assert len(answer.proof) < 1600
    config = Cell.from_boc(answer.shard_proof)[1][0][3][1]
    assert config.type_ == CellTypes.pruned_branch
    shard = ShardStateUnsplit.deserialize(Cell.from_boc(answer.proof)[1][0].begin_parse())
    account = shard.accounts[0][int.from_bytes(AccountId.parse(wallet.address).hash, "big")]
    assert account.cell[0].type_ == CellTypes.pruned_branch


def test_balances_in_the_dictionary_are_the_accounts_and_add_up_at_every_fork(ledger: Ledger, wallet: Wallet) -> None:
    """Go clients refuse an account whose balance differs from the one beside it in the dictionary."""
    seen: dict[bytes, int] = {}

    def walk(cell: OwnCell, key: str, room: int) -> int:
        content = cell.parse()
        value, length = read_label(content, room)
        key += f"{value:0{length}b}" if length else ""
        assert content.uint(5) == 0
        extra = content.currencies()
        if length == room:
            account = read_account(content.ref())
            assert account.balance == extra
            seen[int(key, 2).to_bytes(32, "big")] = extra
            return extra
        zero, one = cell.refs
        room -= length + 1
        assert walk(zero, key + "0", room) + walk(one, key + "1", room) == extra
        return extra

    state = ledger._pairs[ledger.last.seqno].states[0]
    root = state.cell.refs[1].parse()
    assert root.flag()
    assert root.uint(5) == 0
    assert root.currencies() == walk(state.cell.refs[1].refs[0], "", 256) == ledger.coins().held
    assert {f"0:{key.hex()}" for key in seen} == set(ledger.accounts())


def test_an_older_block_shows_the_account_as_it_was(ledger: Ledger, wallet: Wallet) -> None:
    old = ledger.last
    before = prove_account(ledger, old.master, wallet.address)
    wallet.send(internal(BOB, NANO, bounce=False))
    ledger.tick()
    assert prove_account(ledger, old.master, wallet.address).hash == before.hash
    assert prove_account(ledger, ledger.last.master, wallet.address).hash != before.hash


@pytest.mark.parametrize("digit", "0123456789abcdef")
def test_an_absent_account_has_an_empty_state_and_valid_proofs(ledger: Ledger, wallet: Wallet, digit: str) -> None:
    absent = AccountId(0, bytes.fromhex(digit * 63 + "5"))
    answer = ledger.account_answer(ledger.last.master, absent)
    assert answer.state == b""
    check_shard_proof(answer.shard_proof, tl(ledger.last.master), tl(answer.shardblk))
    block, state = Cell.from_boc(answer.proof)
    state_hash = check_block_header_proof(block[0], answer.shardblk.root_hash, True)
    check_proof(state, state_hash)
    shard = ShardStateUnsplit.deserialize(state[0].begin_parse())
    assert int.from_bytes(absent.hash, "big") not in shard.accounts[0]


def test_nobody_exists_in_an_empty_state(ledger: Ledger) -> None:
    answer = ledger.account_answer(ledger.last.master, AccountId.parse(BOB))
    assert answer.state == b""
    block, state = Cell.from_boc(answer.proof)
    check_proof(state, check_block_header_proof(block[0], answer.shardblk.root_hash, True))


def test_a_tampered_proof_is_seen(ledger: Ledger, wallet: Wallet) -> None:
    last = ledger.last.master
    wallet.send(internal(BOB, NANO))
    answer = ledger.account_answer(last, AccountId.parse(wallet.address))
    newer = ledger.account_answer(ledger.last.master, AccountId.parse(wallet.address))
    with pytest.raises(ProofError):
        check_account_proof(
            answer.proof, tl(answer.shardblk), TlbAddress(wallet.address), Cell.one_from_boc(newer.state)
        )
    with pytest.raises(ProofError):
        check_account_proof(
            newer.proof, tl(answer.shardblk), TlbAddress(wallet.address), Cell.one_from_boc(newer.state)
        )


@pytest.mark.parametrize("chain", ["master", "shard"])
def test_blocks_parse_completely_and_have_the_hashes_of_their_id(ledger: Ledger, wallet: Wallet, chain: str) -> None:
    block: BlockId = getattr(ledger.last, chain)
    answer = ledger.block_answer(block)
    root = Cell.one_from_boc(answer.data)
    assert root.hash == block.root_hash
    assert sha256(answer.data).digest() == block.file_hash
    parsed = Block.deserialize(root.begin_parse())
    assert parsed.info.seqno == block.seqno
    assert parsed.info.shard.workchain_id == block.workchain
    assert parsed.info.gen_utime == ledger.last.gen_utime
    assert parsed.info.prev_ref.prev.root_hash == getattr(ledger.block(block.seqno - 1), chain).root_hash
    header = Cell.one_from_boc(ledger.header_answer(block).header_proof)
    check_proof(header, block.root_hash)
    assert Block.deserialize(header[0].begin_parse()).info.end_lt == ledger.last.end_lt


def test_headers_are_found_by_seqno_lt_and_time(ledger: Ledger, wallet: Wallet, clock: ManualClock) -> None:
    clock.advance(10)
    wallet.send(internal(BOB, NANO))
    wanted = ledger.last
    clock.advance(10)
    ledger.tick()
    lt = ledger.transactions(wallet.address)[0].lt
    for workchain, block in ((-1, wanted.master), (0, wanted.shard)):
        for query in (
            {"seqno": wanted.seqno},
            {"lt": lt},
            {"utime": wanted.gen_utime},
            {"utime": wanted.gen_utime - 9},
        ):
            assert ledger.lookup_answer(workchain, WHOLE_SHARD, **query).id == block
    for query in ({"seqno": 10**6}, {"lt": 1 << 62}, {"utime": ledger.now() + 1}):
        with pytest.raises(BlockUnknown):
            ledger.lookup_answer(-1, WHOLE_SHARD, **query)


def test_shards_are_proved(ledger: Ledger) -> None:
    ledger.tick()
    master = ledger.last.master
    answer = ledger.all_shards_answer(master)
    data, proof = Cell.one_from_boc(answer.data), Cell.one_from_boc(answer.proof)
    check_block_header_proof(proof[0], master.root_hash)
    assert data[0].get_hash(0) == proof[0][3][3][0].get_hash(0)
    descr: ShardDescr = deserialize_shard_hashes(data.begin_parse())[0].list[0]
    assert (descr.root_hash, descr.file_hash) == (ledger.last.shard.root_hash, ledger.last.shard.file_hash)
    assert descr.next_validator_shard_signed == WHOLE_SHARD
    info = ledger.shard_info_answer(master, 0, WHOLE_SHARD, True)
    check_shard_proof(info.shard_proof, tl(master), tl(info.shardblk))
    leaf = BinTree.deserialize(Slice.one_from_boc(info.shard_descr))
    assert ShardDescr.deserialize(leaf.list[0]).seq_no == ledger.last.seqno


def test_the_config_is_proved(ledger: Ledger) -> None:
    master = ledger.last.master
    answer = ledger.config_answer(master)
    block, state = Cell.one_from_boc(answer.state_proof), Cell.one_from_boc(answer.config_proof)
    check_proof(state, check_block_header_proof(block[0], master.root_hash, True))
    parsed = ShardStateUnsplit.deserialize(state[0].begin_parse())
    assert sorted(parsed.custom.config.config) == [0, 8, 12, 18, 20, 21, 24, 25]
    assert parsed.seq_no == master.seqno


def check_listed(proof_boc: bytes, block: BlockId) -> dict[tuple[bytes, int], bytes]:
    proof = Cell.one_from_boc(proof_boc)
    check_proof(proof, block.root_hash)
    out = {}
    for account in Block.deserialize(proof[0].begin_parse()).extra.account_blocks[0].values():
        for lt, cell in account.transactions[0].items():
            assert cell.type_ == CellTypes.pruned_branch
            out[bytes.fromhex(account.account_addr), lt] = cell.get_hash(0)
    return out


def test_a_blocks_transactions_are_listed_page_by_page_with_proof(ledger: Ledger) -> None:
    for i in range(30):
        ledger.faucet(Address("0:" + sha256(b"%d" % (i % 20)).hexdigest()), NanoTon(NANO + i))
    block = ledger.tick().shard
    seen: list[tuple[bytes, int]] = []
    after = None
    while True:
        answer = ledger.block_transactions_answer(block, 7, after)
        proved = check_listed(answer.proof, block)
        assert all(proved[item.account, item.lt] == item.hash for item in answer.ids)
        seen.extend((item.account, item.lt) for item in answer.ids)
        after = seen[-1]
        if not answer.incomplete:
            break
    assert len(seen) == 30
    assert seen == sorted(proved)
    backwards = ledger.block_transactions_answer(block, 256, reverse=True)
    assert [(item.account, item.lt) for item in backwards.ids] == seen[::-1]
    extended = ledger.block_transactions_ext_answer(block, 256)
    roots = Cell.from_boc(extended.transactions)
    assert [root.hash for root in roots] == [proved[key] for key in seen]


def test_one_transaction_is_proved_also_in_an_old_block(ledger: Ledger, wallet: Wallet) -> None:
    info = ledger.transactions(wallet.address)[0]
    block = ledger.block(info.seqno).shard
    for _ in range(120):
        ledger.tick()
    account = AccountId.parse(wallet.address)
    answer = ledger.one_transaction_answer(block, account, info.lt)
    assert Cell.one_from_boc(answer.transaction).hash == info.hash
    assert check_listed(answer.proof, block)[account.hash, info.lt] == info.hash
    absent = ledger.one_transaction_answer(block, account, info.lt + 1)
    assert (absent.proof, absent.transaction) == (b"", b"")
    with pytest.raises(BlockUnknown):
        ledger.account_answer(ledger.block(info.seqno).master, account)


def test_the_history_is_a_chain_of_hashes(ledger: Ledger, wallet: Wallet) -> None:
    account = ledger.account(wallet.address)
    expected, lt, seen = account.last_hash, account.last_lt, 0
    while lt:
        answer = ledger.transactions_answer(AccountId.parse(wallet.address), lt, expected, 3)
        roots = Cell.from_boc(answer.transactions)
        assert len(roots) == len(answer.ids) <= 3
        for root, block in zip(roots, answer.ids, strict=True):
            assert root.hash == expected
            transaction = Transaction.deserialize(root.begin_parse())
            assert ledger.one_transaction_answer(block, AccountId.parse(wallet.address), transaction.lt).transaction
            expected, lt = transaction.prev_trans_hash, transaction.prev_trans_lt
            seen += 1
    assert seen == len(ledger.transactions(wallet.address)) > 3
    assert ledger.transactions_answer(AccountId.parse(wallet.address), 0, bytes(32), 16).ids == ()
    with pytest.raises(BadData):
        ledger.transactions_answer(AccountId.parse(wallet.address), account.last_lt, bytes(32), 16)


def test_get_methods_come_with_proofs(ledger: Ledger, wallet: Wallet) -> None:
    answer = ledger.run_method_answer(ledger.last.master, AccountId.parse(wallet.address), 85143, b"")
    assert answer.exit_code == 0
    assert answer.result
    check_shard_proof(answer.shard_proof, tl(ledger.last.master), tl(answer.shardblk))
    state = Cell.one_from_boc(answer.state_proof)
    check_account_proof(answer.proof, tl(answer.shardblk), TlbAddress(wallet.address), state[0])
    missing = ledger.run_method_answer(ledger.last.master, AccountId(0, bytes(32)), 85143, b"")
    assert (missing.exit_code, missing.result, missing.state_proof) == (-256, b"", b"")


@pytest.mark.parametrize("change", ["root_hash", "file_hash", "workchain", "shard", "seqno"])
def test_an_id_that_differs_in_one_field_is_unknown(ledger: Ledger, change: str) -> None:
    good = ledger.last.master
    values = {"root_hash": bytes(32), "file_hash": bytes(32), "workchain": 0, "shard": 0, "seqno": 10**6}
    fields = {name: getattr(good, name) for name in values} | {change: values[change]}
    bad = BlockId(**fields)
    for ask in (ledger.block_answer, ledger.header_answer):
        with pytest.raises(BlockUnknown):
            ask(bad)
    for ask in (ledger.all_shards_answer, ledger.config_answer):
        with pytest.raises(BadData if change == "workchain" else BlockUnknown):
            ask(bad)


def test_a_shard_block_answers_for_its_accounts_only(ledger: Ledger, wallet: Wallet) -> None:
    answer = ledger.account_answer(ledger.last.shard, AccountId.parse(wallet.address))
    assert (answer.shardblk, answer.shard_proof) == (ledger.last.shard, b"")
    with pytest.raises(BadData):
        ledger.account_answer(ledger.last.shard, AccountId(-1, bytes(32)))
    with pytest.raises(BadData):
        ledger.config_answer(ledger.last.shard)


@settings(max_examples=60, deadline=None)
@given(params=st.binary(max_size=200))
def test_junk_as_a_get_methods_stack_is_bad_data(tmp_path_factory: pytest.TempPathFactory, params: bytes) -> None:
    ledger = new_ledger(tmp_path_factory.mktemp("chain"))
    try:
        wallet = funded_wallet(ledger)
        wallet.send(internal(BOB, NANO))
        if params:
            with pytest.raises(BadData):
                ledger.run_method_answer(ledger.last.master, AccountId.parse(wallet.address), 85143, params)
    finally:
        ledger.close()
