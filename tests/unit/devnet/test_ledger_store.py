"""What survives: restarts, kill -9, snapshots; and time, which only goes forward."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.devnet_chain import Wallet, funded_wallet, internal, new_ledger
from tonfs.clock import ManualClock
from tonfs.devnet.answers import KEPT_STATES
from tonfs.devnet.chain_api import AccountId, Coins
from tonfs.devnet.ledger import Ledger
from tonfs.errors import BlockUnknown, Busy, Damaged, ExternalRefused, NotFound, UsageError
from tonfs.ids import NANO, Address, NanoTon

BOB = Address("0:" + "b0" * 32)


def everything(ledger: Ledger) -> object:
    """All that a client can see, at the last block and at one some time ago."""
    out: list[object] = [ledger.last, ledger.zero_state, ledger.coins(), ledger.accounts()]
    for address in ledger.accounts():
        out.append(ledger.transactions(address, 100))
        for seqno in (ledger.last.seqno, max(1, ledger.last.seqno - 20)):
            out.append(ledger.account(address, seqno))
            out.append(ledger.account_answer(ledger.block(seqno).master, AccountId.parse(address)))
    for seqno in (1, ledger.last.seqno):
        for block in (ledger.block(seqno).master, ledger.block(seqno).shard):
            out.extend((ledger.block_answer(block), ledger.header_answer(block)))
            out.append(ledger.block_transactions_answer(block, 256))
    return out


@pytest.mark.parametrize("blocks", [0, 5, 3 * KEPT_STATES])
def test_a_restart_changes_nothing(tmp_path: Path, blocks: int) -> None:
    clock = ManualClock()
    ledger = new_ledger(tmp_path, clock)
    wallet = funded_wallet(ledger)
    wallet.send(internal(BOB, NANO, bounce=False))
    wallet.send(internal(BOB, 0, bounce=False), mode=128 + 32)
    other = funded_wallet(ledger, "bob")
    for i in range(blocks):
        clock.advance(2)
        if i % 10 == 0:
            other.send(internal(BOB, i + 1, bounce=False))
        else:
            ledger.tick()
    ledger.advance(1000)
    ledger.tick()
    ledger.faucet(BOB, NanoTon(5))
    message = ledger.inject_external(other.external([internal(BOB, 77, bounce=False)]))
    before, now = everything(ledger), ledger.now()
    ledger.close()
    again = new_ledger(tmp_path, clock)
    assert everything(again) == before
    assert again.now() == now
    assert again.coins().in_flight == 5
    assert again.tick().transactions == 3
    assert len(again.trace(message)) == 2
    again.close()


def test_the_same_steps_after_a_restart_make_the_same_blocks(tmp_path: Path) -> None:
    ids = []
    for restart in (False, True):
        directory = tmp_path / str(restart)
        clock = ManualClock()
        ledger = new_ledger(directory, clock)
        wallet = funded_wallet(ledger)
        if restart:
            ledger.close()
            ledger = new_ledger(directory, clock)
            wallet.ledger = ledger
        wallet.send(internal(BOB, NANO, bounce=False))
        ids.append(ledger.last.master)
        ledger.close()
    assert ids[0] == ids[1]


_VICTIM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.fakes.devnet_chain import funded_wallet, internal, new_ledger
ledger = new_ledger(Path(sys.argv[1]))
wallet = funded_wallet(ledger)
while True:
    wallet.send(internal("0:" + "b0" * 32, 1000, bounce=False))
    print(ledger.last.seqno, ledger.last.master.root_hash.hex(), flush=True)
"""


def test_kill_9_loses_no_block_that_was_made(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", _VICTIM, str(tmp_path), str(root)], stdout=subprocess.PIPE, text=True, cwd=root
    ) as victim:
        assert victim.stdout is not None
        for _ in range(30):
            line = victim.stdout.readline()
        os.kill(victim.pid, signal.SIGKILL)
    seqno, root_hash = line.split()
    ledger = new_ledger(tmp_path)
    assert ledger.last.seqno >= int(seqno)
    assert ledger.block(int(seqno)).master.root_hash.hex() == root_hash
    assert ledger.coins().ok
    assert ledger.account(BOB).balance >= (int(seqno) - 2) * 1000
    ledger.tick()
    ledger.close()


def test_two_ledgers_cannot_share_a_chain(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    with pytest.raises(Busy):
        new_ledger(tmp_path)
    ledger.close()
    new_ledger(tmp_path).close()


def test_a_file_that_is_no_chain_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "chain.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(Damaged):
        new_ledger(tmp_path)


def test_a_chain_of_another_format_is_refused(tmp_path: Path) -> None:
    new_ledger(tmp_path).close()
    db = sqlite3.connect(tmp_path / "chain.db")
    db.execute("PRAGMA user_version=99")
    db.commit()
    db.close()
    with pytest.raises(Damaged, match="format 99"):
        new_ledger(tmp_path)


def test_a_changed_balance_is_found_at_start(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    wallet = funded_wallet(ledger)
    wallet.send(internal(BOB, NANO, bounce=False))
    ledger.close()
    db = sqlite3.connect(tmp_path / "chain.db")
    db.execute("DELETE FROM versions WHERE account = ?", (AccountId.parse(BOB).hash,))
    db.commit()
    db.close()
    with pytest.raises(Damaged):
        new_ledger(tmp_path)


@pytest.mark.allow_logs
def test_a_block_whose_coins_do_not_add_up_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = new_ledger(tmp_path)
    ledger.faucet(BOB, NanoTon(NANO))
    before = ledger.last
    wrong = Coins(1, 0, 0, 0)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "coins", lambda self: wrong)
        with pytest.raises(Damaged, match="do not add up"):
            ledger.tick()
    ledger.close()
    again = new_ledger(tmp_path)
    assert again.last == before
    assert again.tick().transactions == 1
    again.close()


def test_a_full_disk_at_a_tick_leaves_the_ledger_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = new_ledger(tmp_path)
    wallet = funded_wallet(ledger)
    ledger.inject_external(wallet.external([internal(BOB, NANO, bounce=False)]))
    before = everything(ledger)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(ledger._store, "write_tick", full)
        with pytest.raises(sqlite3.OperationalError):
            ledger.tick()
    assert everything(ledger) == before
    assert ledger.tick().transactions == 2
    assert ledger.account(BOB).balance == NANO
    ledger.close()


def test_snapshot_and_restore(tmp_path: Path) -> None:
    clock = ManualClock()
    ledger = new_ledger(tmp_path, clock)
    wallet = funded_wallet(ledger)
    wallet.send(internal(BOB, NANO, bounce=False))
    ledger.faucet(BOB, NanoTon(3))
    before = everything(ledger)
    ledger.snapshot("base")
    seqno, time = wallet.seqno, ledger.now()
    ledger.advance(86400)
    for _ in range(3):
        wallet.send(internal(BOB, 2 * NANO, bounce=False))
    assert everything(ledger) != before
    for _ in range(2):
        ledger.restore("base")
        assert everything(ledger) == before
        assert ledger.now() == time
        wallet.seqno = seqno
        wallet.send(internal(BOB, NANO, bounce=False))
    assert ledger.snapshots() == ["base"]
    ledger.close()
    again = new_ledger(tmp_path, clock)
    assert again.account(BOB).balance == 2 * NANO + 3
    again.close()


@pytest.mark.parametrize("name", ["", "../evil", "/etc/passwd", "a/b", ".hidden", "x" * 65, "a\0b"])
def test_a_snapshot_name_is_no_path(tmp_path: Path, name: str) -> None:
    ledger = new_ledger(tmp_path)
    with pytest.raises(UsageError):
        ledger.snapshot(name)
    with pytest.raises(UsageError):
        ledger.restore(name)
    ledger.close()


def test_an_unknown_snapshot_is_not_found(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    with pytest.raises(NotFound, match="no snapshot"):
        ledger.restore("never")
    ledger.close()


def test_chain_time_follows_the_host_and_never_goes_back(tmp_path: Path) -> None:
    clock = ManualClock()
    ledger = new_ledger(tmp_path, clock)
    start = ledger.last.gen_utime
    clock.advance(10)
    assert ledger.tick().gen_utime == start + 10
    clock.advance(-100)
    assert ledger.tick().gen_utime == start + 10
    assert ledger.advance(50) == start + 60
    assert ledger.tick().gen_utime == start + 60
    assert ledger.tick(now=5).gen_utime == start + 60
    with pytest.raises(UsageError):
        ledger.advance(-1)
    with pytest.raises(UsageError):
        ledger.advance(1 << 40)
    ledger.close()


def test_lts_and_times_never_decrease_along_the_chain(tmp_path: Path) -> None:
    clock = ManualClock()
    ledger = new_ledger(tmp_path, clock)
    wallet = funded_wallet(ledger)
    for _ in range(10):
        clock.advance(2)
        wallet.send(*(internal(BOB, NANO // 100, bounce=False) for _ in range(4)))
    blocks = [ledger.block(seqno) for seqno in range(1, ledger.last.seqno + 1)]
    for old, new in itertools.pairwise(blocks):
        assert old.gen_utime <= new.gen_utime
        assert old.start_lt < old.end_lt < new.start_lt
    for info in ledger.transactions(BOB, 1000) + ledger.transactions(wallet.address, 1000):
        block = ledger.block(info.seqno)
        assert block.start_lt < info.lt < block.end_lt
    ledger.close()


def test_only_the_last_states_are_kept_and_old_versions_forgotten(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    wallet = funded_wallet(ledger)
    for _ in range(KEPT_STATES + 60):
        wallet.send(internal(BOB, 1000, bounce=False))
    last = ledger.last.seqno
    assert ledger.account(BOB, last - KEPT_STATES + 1).status == "uninit"
    with pytest.raises(BlockUnknown):
        ledger.account(BOB, last - KEPT_STATES)
    (count,) = ledger._store._db.execute("SELECT COUNT(*) FROM versions").fetchone()
    assert count <= 2 * (KEPT_STATES + 52)
    ledger.close()


def test_a_closed_wallet_sees_refusals_not_crashes(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    wallet = Wallet(ledger)
    with pytest.raises(ExternalRefused):
        wallet.send(internal(BOB, 1))
    with pytest.raises(UsageError):
        ledger.account(Address("nonsense"))
    ledger.close()
