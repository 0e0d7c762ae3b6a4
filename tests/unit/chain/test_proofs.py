"""Proof checks against real blocks of the devnet's ledger: honest answers pass, every kind of lie does not."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.devnet_chain import Wallet, funded_wallet, internal, new_ledger
from tests.fakes.ledger_chain import account_id, block_ref
from tonfs.chain import proofs
from tonfs.chain.address import join
from tonfs.chain.api import AccountState, AccountStatus
from tonfs.chain.cells import one_cell, to_boc
from tonfs.chain.lite_tl import AccountAnswer
from tonfs.devnet.ledger import Ledger
from tonfs.errors import BadProof
from tonfs.ids import NANO, Address

NOBODY = Address("0:" + "0c" * 32)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    chain = new_ledger(tmp_path)
    yield chain
    chain.close()


def crowd(ledger: Ledger) -> Wallet:
    """A wallet with some history among other accounts."""
    wallet = funded_wallet(ledger)
    for n in range(1, 8):
        wallet.send(internal(f"0:{n * 7919:064x}", NANO, bounce=False))
    return wallet


def ask(ledger: Ledger, address: Address) -> AccountAnswer:
    answer = ledger.account_answer(ledger.last.master, account_id(address))
    return AccountAnswer(
        block_ref(answer.id), block_ref(answer.shardblk), answer.shard_proof, answer.proof, answer.state
    )


def facts(state: AccountState) -> tuple[object, ...]:
    cells = [cell.hash if cell is not None else None for cell in (state.code, state.data)]
    return (*cells, state.balance, state.last_lt, state.last_hash, state.now, state.seqno)


def test_an_honest_answer_gives_the_account_and_the_blocks_time(ledger: Ledger) -> None:
    wallet = crowd(ledger)
    answer = ask(ledger, wallet.address)
    state, header = proofs.account(answer, answer.id, wallet.address)
    info = ledger.account(wallet.address)
    assert (state.balance, state.status) == (info.balance, AccountStatus.ACTIVE)
    assert (state.code_hash, state.last_lt, state.last_hash) == (info.code_hash, info.last_lt, info.last_hash)
    assert state.data is not None
    assert state.data.hash == one_cell(info.data).hash
    assert header.gen_utime == ledger.last.gen_utime == state.now
    assert header.seqno == state.seqno == ledger.last.seqno


def test_an_absent_account_is_proved_to_be_absent(ledger: Ledger) -> None:
    crowd(ledger)
    answer = ask(ledger, NOBODY)
    assert proofs.account(answer, answer.id, NOBODY)[0].status is AccountStatus.NONE


def test_hiding_an_existing_account_is_noticed(ledger: Ledger) -> None:
    wallet = crowd(ledger)
    answer = ask(ledger, wallet.address)
    with pytest.raises(BadProof, match="another account state"):
        proofs.account(replace(answer, state=b""), answer.id, wallet.address)
    absent = ask(ledger, NOBODY)
    with pytest.raises(BadProof):
        proofs.account(replace(absent, id=answer.id), answer.id, wallet.address)


def test_an_older_state_with_its_own_valid_proof_is_not_accepted_for_a_newer_block(ledger: Ledger) -> None:
    wallet = crowd(ledger)
    old = ask(ledger, wallet.address)
    wallet.send(internal(NOBODY, NANO, bounce=False))
    with pytest.raises(BadProof, match="another hash"):
        proofs.account(old, block_ref(ledger.last.master), wallet.address)
    new = ask(ledger, wallet.address)
    for mixed in (
        replace(new, state=old.state),
        replace(new, proof=old.proof),
        replace(new, shard_block=old.shard_block, proof=old.proof, state=old.state),
        replace(new, shard_proof=old.shard_proof),
    ):
        with pytest.raises(BadProof):
            proofs.account(mixed, new.id, wallet.address)


def test_the_state_of_another_account_is_not_accepted(ledger: Ledger) -> None:
    wallet = crowd(ledger)
    other = Address(f"0:{7919:064x}")
    answer = ask(ledger, wallet.address)
    with pytest.raises(BadProof):
        proofs.account(replace(answer, state=ask(ledger, other).state), answer.id, wallet.address)
    with pytest.raises(BadProof):
        proofs.account(ask(ledger, other), answer.id, wallet.address)


def test_a_shard_block_may_not_stand_in_for_the_masterchain(ledger: Ledger) -> None:
    wallet = crowd(ledger)
    answer = ask(ledger, wallet.address)
    with pytest.raises(BadProof):
        proofs.account(replace(answer, shard_block=answer.id), answer.id, wallet.address)
    elsewhere = join(-1, bytes(32))
    with pytest.raises(BadProof):
        proofs.account(answer, answer.id, elsewhere)


def test_flipping_any_byte_of_a_proof_is_noticed(ledger: Ledger) -> None:
    wallet = crowd(ledger)
    answer = ask(ledger, wallet.address)
    rng = random.Random(1)
    honest = proofs.account(answer, answer.id, wallet.address)[0]
    for field in ("shard_proof", "proof", "state"):
        data = bytearray(getattr(answer, field))
        for at in rng.sample(range(len(data)), 60):
            broken = bytes(data[:at]) + bytes([data[at] ^ 1 << rng.randrange(8)]) + bytes(data[at + 1 :])
            with contextlib.suppress(BadProof):
                # A flip in the container (an unused flag, an index) may leave the same cells.
                found = proofs.account(replace(answer, **{field: broken}), answer.id, wallet.address)[0]
                assert facts(found) == facts(honest)


def test_a_header_proves_its_blocks_number_and_time(ledger: Ledger) -> None:
    crowd(ledger)
    last = ledger.last
    boc = ledger.header_answer(last.master).header_proof
    header = proofs.block_header(boc, block_ref(last.master))
    assert (header.seqno, header.gen_utime, header.end_lt) == (last.seqno, last.gen_utime, last.end_lt)
    with pytest.raises(BadProof, match="another one"):
        proofs.block_header(boc, replace(block_ref(last.master), seqno=last.seqno + 5))
    with pytest.raises(BadProof):
        proofs.block_header(
            ledger.header_answer(ledger.block(last.seqno - 1).master).header_proof, block_ref(last.master)
        )


def test_transactions_are_proved_by_the_chain_of_their_hashes(ledger: Ledger) -> None:
    wallet = crowd(ledger)
    info = ledger.account(wallet.address)
    page = ledger.transactions_answer(account_id(wallet.address), info.last_lt, info.last_hash, 16).transactions
    found = proofs.transactions(page, wallet.address, info.last_lt, info.last_hash, 16)
    theirs = ledger.transactions(wallet.address, 16)
    assert [t.hash for t in found] == [t.hash for t in theirs]
    assert [(t.exit_code, t.action_code, t.aborted) for t in found] == [
        (t.exit_code, t.action_code, t.aborted) for t in theirs
    ]
    assert found[-1].prev_lt == 0
    assert sum(t.delta for t in found) == info.balance
    with pytest.raises(BadProof, match="follow"):
        proofs.transactions(page, wallet.address, info.last_lt, b"\0" * 32, 16)
    with pytest.raises(BadProof, match="follow"):
        proofs.transactions(to_boc(one_cell(theirs[1].boc)), wallet.address, info.last_lt, info.last_hash, 16)
    with pytest.raises(BadProof, match="no transaction"):
        proofs.transactions(b"", wallet.address, info.last_lt, info.last_hash, 16)
    with pytest.raises(BadProof):
        proofs.transactions(page, NOBODY, info.last_lt, info.last_hash, 16)
    with pytest.raises(BadProof):
        proofs.transactions(page, wallet.address, info.last_lt, info.last_hash, 2)
