"""The journal: what a record holds, which one counts after a crash, and when none may be written."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.volume.helpers import crash_copy
from tonfs.errors import FsError
from tonfs.ids import Inode
from tonfs.volume import ROOT, Volume, journal, schema
from tonfs.volume.check import open_index
from tonfs.volume.journal import PLACE, pack, unpack
from tonfs.volume.writeback import Rows

VECTOR = (
    '{"volume":"0123","cookies":7,"gone":[[5,["inode","inline"]]],"names":[[1,9,"caf\\u00e9",6],[1,8,"old",0]],'
    '"inodes":[[6,33188,1,0,0,0,3,8,1,2,3,4,5,6,513,0,0]],"no_data":[5],"data":[[6,3]],"no_record":[],'
    '"records":[[6,1,"e","text/plain","{}","{}","{}","{}","FULL_OBJECT"]],"doomed":[5],"undoomed":[4],'
    '"meta":{"inode_next":"7"}}'
)
"""The JSON of docs/formats.md."""


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    (tmp_path / "v").mkdir()
    made = Volume(tmp_path / "v")
    made.create(ROOT, b"first", 0o644, 0, 0)  # numbers are committed, which happens only now and then
    made.unlink(ROOT, b"first")
    made.commit()
    yield made
    made.close()


def new(volume: Volume, name: bytes, data: bytes) -> Inode:
    inode = volume.create(ROOT, name, 0o644, 0, 0).inode
    volume.write(inode, 0, data)
    return inode


def after_crash(volume: Volume, target: Path) -> dict[str, bytes]:
    """Names and contents of a copy as a kill now would leave it."""
    copy = Volume(crash_copy(volume.directory, target))
    try:
        return {e.name.decode(): copy.read(e.attr.inode, 0, 99_999).data for e in copy.list_dir(ROOT, 2, 99)}
    finally:
        copy.abandon()


def record() -> bytes:
    """Put together by hand."""
    text, data = VECTOR.encode(), b"new"
    rest = b"".join(number.to_bytes(size, "little") for number, size in ((3, 8), (2, 8), (len(text), 4), (3, 4)))
    crc = zlib.crc32(rest + text + data)
    return b"TONFSJNL" + (1).to_bytes(4, "little") + crc.to_bytes(4, "little") + rest + text + data


def test_the_format() -> None:
    found = unpack(record() + bytes(1000), "0123")
    assert found is not None
    serial, base, rows = found
    assert (serial, base) == (3, 2)
    assert rows.data == [(6, b"new")]
    assert rows.names == {1: {9: ("café".encode("latin-1"), 6), 8: (b"old", 0)}}
    assert pack(3, 2, "0123", rows) == record()


@pytest.mark.parametrize(
    "place", [b"", bytes(PLACE), record()[:-1], b"X" + record()[1:], record()[:8] + b"\2" + record()[9:]]
)
def test_what_is_no_whole_record_means_nothing(place: bytes) -> None:
    assert unpack(place, "0123") is None


def test_a_record_of_another_volume_or_with_a_wrong_bit_means_nothing() -> None:
    assert unpack(record(), "4567") is None
    for at in range(12, len(record())):
        broken = bytearray(record())
        broken[at] ^= 1
        assert unpack(bytes(broken), "0123") is None


def test_what_was_fsynced_is_there_after_a_crash(volume: Volume, tmp_path: Path) -> None:
    inode = new(volume, b"a", b"one")
    volume.sync(inode)
    assert volume._committed < volume._gen, "only the journal has it"
    assert after_crash(volume, tmp_path / "1") == {"a": b"one"}
    volume.write(inode, 3, b" two")
    volume.sync(inode)
    gone = new(volume, b"b", b"three")
    volume.sync(gone)
    assert after_crash(volume, tmp_path / "2") == {"a": b"one two", "b": b"three"}
    volume.unlink(ROOT, b"b")
    volume.sync(ROOT)
    assert after_crash(volume, tmp_path / "3") == {"a": b"one two"}


def test_a_torn_record_leaves_the_one_before(volume: Volume, tmp_path: Path) -> None:
    inode = new(volume, b"a", b"one")
    volume.sync(inode)
    volume.write(inode, 0, b"two")
    volume.sync(inode)
    directory = crash_copy(volume.directory, tmp_path / "1")
    with (directory / journal.NAME).open("r+b") as file:
        data = file.read()
        at = max(data.index(b"TONFSJNL"), data.rindex(b"TONFSJNL"), key=lambda place: data[place + 16 : place + 24])
        file.seek(at + 100)
        file.write(b"torn")
    copy = Volume(directory)
    assert copy.read(inode, 0, 9).data == b"one"
    copy.abandon()


def test_after_a_commit_records_mean_nothing(volume: Volume, tmp_path: Path) -> None:
    inode = new(volume, b"a", b"one")
    volume.sync(inode)
    volume.write(inode, 0, b"two")
    volume.background()
    assert volume._committed == volume._gen
    assert after_crash(volume, tmp_path / "1") == {"a": b"two"}
    volume.close()
    again = Volume(volume.directory)
    assert again.read(inode, 0, 9).data == b"two"
    again.close()


def test_when_a_commit_is_lost_the_record_before_it_counts(volume: Volume, tmp_path: Path) -> None:
    inode = new(volume, b"a", b"one")
    volume.sync(inode)
    before = crash_copy(volume.directory, tmp_path / "before")
    volume.commit()
    volume.write(inode, 0, b"two")
    volume.sync(inode)
    after = crash_copy(volume.directory, tmp_path / "after")
    (before / journal.NAME).write_bytes((after / journal.NAME).read_bytes())
    copy = Volume(before)
    assert copy.read(inode, 0, 9).data == b"one", "not what builds on a commit that is not there"
    copy.abandon()


def test_a_commit_that_is_not_on_the_disk_is_not_built_on(volume: Volume) -> None:
    inode = new(volume, b"a", b"one")
    volume.commit()
    volume.write(inode, 0, b"two")
    volume._commit_locked()
    volume.write(inode, 0, b"six")
    serial = volume.journal._serial
    volume.sync(inode)
    assert volume.journal._serial == serial
    assert volume._wal_synced == volume._committed == volume._gen


def test_the_record_before_must_be_on_the_disk(volume: Volume) -> None:
    inode = new(volume, b"a", b"one")
    walk = volume.sync_steps(inode)
    step = next(walk)
    assert step is not None
    assert os.readlink(f"/proc/self/fd/{step[0]}").endswith("journal")
    serial = volume.journal._serial
    volume.write(inode, 0, b"two")
    volume.sync(inode)  # of the two places one is being written, and the other may hold what was promised
    assert volume.journal._serial == serial
    assert volume._committed == volume._gen
    assert list(walk) == []
    volume.write(inode, 0, b"six")
    volume.sync(inode)
    assert volume.journal._serial == serial + 1


def test_a_record_that_is_too_long_is_none(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    inode = new(volume, b"a", b"x" * 5000)
    monkeypatch.setattr(journal, "PLACE", 4096)
    volume.sync(inode)
    assert volume._wal_synced == volume._gen


def test_content_files_that_the_index_does_not_know_are_committed(volume: Volume, tmp_path: Path) -> None:
    first, second = new(volume, b"a", b"x" * 20_000), new(volume, b"b", b"y" * 20_000)
    volume.content.new_shards.clear()  # as if others had fsynced these directories
    volume.sync(second)
    assert volume._committed == volume._gen
    volume.write(first, 20_000, b"z")
    volume.sync(first)
    assert volume._committed < volume._gen
    assert after_crash(volume, tmp_path / "1") == {"a": b"x" * 20_000 + b"z", "b": b"y" * 20_000}


def test_the_packer_sees_what_only_the_journal_had(volume: Volume) -> None:
    inode = new(volume, b"a", b"one")
    volume.sync(inode)
    assert [file.inode for file in volume.dirty(0.0, 1 << 20, force=True).files] == [inode]


def test_fsck_brings_it_in(volume: Volume, tmp_path: Path) -> None:
    inode = new(volume, b"a", b"one")
    volume.sync(inode)
    directory = crash_copy(volume.directory, tmp_path / "1")
    before = {name: (directory / name).read_bytes() for name in ("index.db", "index.db-wal", "journal")}
    for replay in (False, True, False):
        db = open_index(directory, replay=replay)
        assert db.execute("SELECT data FROM inline").fetchall() == [(b"one",)]
        db.close()
        assert replay == (before != {name: (directory / name).read_bytes() for name in before})
        if replay:
            break


def test_an_older_index_gets_it(tmp_path: Path) -> None:
    db = schema.connect(tmp_path / schema.INDEX_NAME)
    for number, migration in enumerate(schema.MIGRATIONS[:5]):
        migration(db)
        db.execute(f"PRAGMA user_version = {number + 1}")
    db.close()
    volume = Volume(tmp_path)
    volume.commit()
    inode = new(volume, b"a", b"one")
    volume.sync(inode)
    assert after_crash(volume, tmp_path.with_name("copy")) == {"a": b"one"}
    volume.close()


def test_rows_of_what_waits_leave_it_waiting(volume: Volume) -> None:
    inode = new(volume, b"a", b"one")
    rows = Rows(volume._pending, volume._cookies_taken)
    assert rows.data == [(inode, b"one")]
    volume.commit()
    assert volume._read.execute("SELECT data FROM inline").fetchall() == [(b"one",)]


def test_what_small_files_had_before_they_were_removed_does_not_count(volume: Volume) -> None:
    """A program that makes, fsyncs and removes a file of 9 KB again and again, as SQLite does."""
    commits = volume._committed
    for number in range(40):
        inode = new(volume, b"x-journal", bytes([number]) * 9000)
        volume.sync(inode)
        volume.unlink(ROOT, b"x-journal")
    assert volume._committed == commits
    assert not volume._pending.gone, "the index never heard of them"


def test_a_file_that_only_the_journal_knows_keeps_its_bytes_until_its_removal_is_on_the_disk(
    volume: Volume, tmp_path: Path
) -> None:
    inode = new(volume, b"a", b"one" * 9000)
    volume.commit()
    other = new(volume, b"b", b"two")
    volume.write(inode, 0, b"ONE")
    volume.sync(other)
    kept = new(volume, b"c", b"three" * 9000)
    volume.sync(kept)
    volume.unlink(ROOT, b"b")
    volume.unlink(ROOT, b"c")
    volume._reap()
    after = after_crash(volume, tmp_path / "1")
    assert after["b"] == b"two"
    assert after["c"] == b"three" * 9000
    volume.sync(new(volume, b"d", b"four"))
    volume._reap()
    assert set(after_crash(volume, tmp_path / "2")) == {"a", "d"}


def test_a_journal_that_cannot_be_written_is_done_without(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    inode = new(volume, b"a", b"one")
    real = os.pwrite

    def broken(fd: int, data: bytes, offset: int) -> int:
        if fd == volume.journal.fd:
            raise OSError(5, "broken")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", broken)
    volume.sync(inode)
    assert volume._wal_synced == volume._gen


def test_without_room_for_the_journal_a_volume_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        if len(data) == 2 * PLACE:
            raise OSError(28, "full")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    volume = Volume(tmp_path)
    inode = new(volume, b"a", b"one")
    volume.commit()
    volume.write(inode, 0, b"two")
    volume.sync(inode)
    assert volume._wal_synced == volume._gen
    volume.close()


def test_records_are_wiped_when_the_index_has_them_on_the_disk(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = new(volume, b"a", b"one")
    volume.sync(inode)
    directory = crash_copy(volume.directory, tmp_path / "1")
    order: list[str] = []
    real = os.pwrite

    def write(fd: int, data: bytes, offset: int) -> int:
        order.append("write " + Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", write)
    monkeypatch.setattr(os, "fsync", lambda fd: order.append("sync " + Path(os.readlink(f"/proc/self/fd/{fd}")).name))
    copy = Volume(directory)
    monkeypatch.undo()
    copy.abandon()
    assert order.index("sync index.db-wal") < order.index("write journal") < order.index("sync journal")


def test_what_was_committed_while_the_log_was_being_synced_is_not_on_the_disk(volume: Volume) -> None:
    inode = new(volume, b"a", b"one")
    volume.set_xattr(inode, b"user.x", b"")  # so that it is the index's turn
    walk = volume.sync_steps(inode)
    assert next(walk)
    volume.write(inode, 0, b"two")
    with volume.lock:
        volume._commit_locked()
    assert list(walk) == []
    assert volume._wal_synced < volume._committed
    serial = volume.journal._serial
    volume.write(inode, 0, b"six")
    volume.sync(inode)
    assert volume.journal._serial == serial


def test_after_a_commit_that_failed_the_index_still_has_not_heard_of_content_files(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = new(volume, b"a", b"x" * 20_000)
    volume.content.new_shards.clear()  # as if others had fsynced the directory

    def broken() -> None:
        raise OSError(5, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(volume.space, "before_commit", broken)
        with pytest.raises(FsError):
            volume.commit()
    serial = volume.journal._serial
    volume.sync(inode)
    assert volume.journal._serial == serial
    assert volume._wal_synced == volume._gen


class Late:
    """A lock that is free because its holder has just ended: a thread that wrote a batch."""

    def __init__(self, volume: Volume) -> None:
        self.real, self.volume = volume._flushing, volume
        self.batch = volume._take()

    def acquire(self, blocking: bool = True) -> bool:
        if not self.batch.written:
            self.volume._write(self.batch)
        return self.real.acquire(blocking)

    def release(self) -> None:
        self.real.release()

    def __enter__(self) -> bool:
        return self.real.acquire()

    def __exit__(self, *_: object) -> None:
        self.real.release()


def test_a_batch_that_a_thread_has_just_written_is_not_built_on(
    volume: Volume, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inode = new(volume, b"a", b"one")
    volume.sync(inode)
    volume.write(inode, 0, b"two")
    serial = volume.journal._serial
    with volume.lock, monkeypatch.context() as patch:
        patch.setattr(volume, "_flushing", Late(volume))
        volume.write(inode, 0, b"six")
        volume.sync(inode)
    assert volume.journal._serial == serial
    assert volume._wal_synced == volume._gen
    assert after_crash(volume, tmp_path / "1") == {"a": b"six"}
