"""What is done under the recorder (`test_power_loss.py`): steps, each saying what may and what must be there.

    python -m tests.unit.volume.power.workload VOLUME CLAIMS PACKS

A line of CLAIMS is JSON: path -> list of allowed contents (hex of a hash, "" for absent, "*" for any content), as it
holds from then on. It is written with write(2), so it stands in the recorder's log between the calls it speaks about.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import sys
from pathlib import Path

from tests.unit.volume.helpers import Packer
from tonfs.ids import Inode
from tonfs.volume import ROOT, S3Record, SetAttr, Volume
from tonfs.volume import inodes as engine

ANY, ABSENT = "*", ""
BIG, OTHER, SMALL, TINY = b"B" * 40_000, b"O" * 50_000, b"s" * 3000, b"tiny"


def digest(content: bytes, mtime_ns: int = 0) -> str:
    return hashlib.sha256(content + str(mtime_ns).encode()).hexdigest()


class Work:
    def __init__(self, volume: Volume, claims: Path, packs: Path) -> None:
        self.volume = volume
        self.packs = packs
        self.packer = Packer()
        self._fd = os.open(claims, os.O_WRONLY | os.O_CREAT, 0o600)
        self._now: dict[str, set[str]] = {}

    def _say(self) -> None:
        os.write(self._fd, json.dumps({path: sorted(what) for path, what in self._now.items()}).encode() + b"\n")

    def may(self, path: str, *contents: bytes | str | None) -> None:
        allowed = self._now.setdefault(path, {ABSENT})
        for content in contents:
            allowed.add(ABSENT if content is None else content if isinstance(content, str) else digest(content))
        self._say()

    def must(self, path: str, content: bytes | None) -> None:
        self._now[path] = {ABSENT if content is None else digest(content)}
        self._say()

    def pack(self) -> None:
        self.packer.pack_all(self.volume)
        self.packs.write_bytes(pickle.dumps(self.packer))

    def new(self, name: str, content: bytes, *, sync: bool = True) -> Inode:
        self.may(name, b"", content)
        inode = self.volume.create(ROOT, name.encode(), 0o644, 0, 0).inode
        self.volume.write(inode, 0, content)
        if sync:
            self.volume.sync(inode)
            self.must(name, content)
        return inode


def fsync_keeps_what_it_said(work: Work) -> None:
    big, small = work.new("big", BIG), work.new("small", SMALL)
    work.may("big", BIG + SMALL)
    work.volume.write(big, len(BIG), SMALL)
    work.volume.sync(big, data_only=True)
    work.must("big", BIG + SMALL)
    work.may("small", SMALL + BIG, SMALL + bytes(len(BIG)))
    work.volume.write(small, len(SMALL), BIG)  # from the index into a content file
    work.volume.background()
    work.volume.sync(small)
    work.must("small", SMALL + BIG)
    for turn in range(5):  # moves to a content file on its own
        work.may("small", SMALL + BIG)
        tiny = work.volume.lookup(ROOT, b"tiny").inode if turn else work.new("tiny", TINY)
        work.may("tiny", TINY * (turn + 2))
        work.volume.write(tiny, 0, TINY * (turn + 2))
        work.volume.sync(tiny)
        work.must("tiny", TINY * (turn + 2))


def a_log_grows(work: Work) -> None:
    content = BIG
    log = work.new("log", content)
    for turn in range(12):
        content += SMALL
        work.may("log", content)
        work.volume.write(log, len(content) - len(SMALL), SMALL)
        if turn % 3 == 1:
            work.volume.background()
        work.volume.sync(log)
        work.must("log", content)
    for number in range(3):  # nobody asks for these, and their directories are new
        work.new(f"lone{number}", BIG, sync=False)
        work.may(f"lone{number}", ANY)
    work.volume.background()
    work.volume.background()


def a_rename_over_is_old_or_new(work: Work) -> None:
    for name, old, new in (("r1", BIG, OTHER), ("r2", SMALL, TINY), ("r3", SMALL, OTHER), ("r4", BIG, TINY)):
        work.new(name, old)
        work.new(name + ".new", new, sync=False)
        work.may(name + ".new", "*")  # nothing was promised of it under this name
        work.may(name, new)
        work.volume.rename(ROOT, f"{name}.new".encode(), ROOT, name.encode())
        work.volume.background()
    work.volume.commit()
    for name, new in (("r1", OTHER), ("r2", TINY), ("r3", OTHER), ("r4", TINY)):
        work.must(name, new)
        work.must(name + ".new", None)


def truncating_and_writing_anew(work: Work) -> None:
    for name, old, new in (("t1", BIG, OTHER), ("t2", SMALL, BIG)):
        inode = work.new(name, old)
        work.may(name, ANY)
        work.volume.truncate(inode, 0)
        work.volume.background()
        work.volume.write(inode, 0, new)
        work.volume.sync(inode)
        work.must(name, new)
        for at in (1000, 500):  # what lay behind the new end never shows again
            work.may(name, new[:at], new[:at] + bytes(30_000 - at))
            work.volume.truncate(inode, at)
            if at == 500:
                work.volume.commit()
            work.volume.truncate(inode, 30_000)
            work.volume.background()
            work.volume.sync(inode)
            work.must(name, new[:at] + bytes(30_000 - at))


def holes_and_replaced_names_keep_their_size(work: Work) -> None:
    """Of files that get a content file after they were promised."""
    volume, zeros = work.volume, bytes(40_000)
    work.may("hole", b"", zeros)
    hole = volume.create(ROOT, b"hole", 0o644, 0, 0).inode
    volume.truncate(hole, len(zeros))
    volume.sync(hole)
    work.must("hole", zeros)
    filled = zeros[:20_000] + TINY + zeros[20_004:]
    work.may("hole", filled)
    volume.write(hole, 20_000, TINY)
    volume.background()
    volume.sync(hole)
    work.must("hole", filled)
    work.new("lines", OTHER)
    lines = work.new("lines.new", TINY, sync=False)
    work.may("lines.new", ANY)
    work.may("lines", TINY, TINY + BIG)
    volume.rename(ROOT, b"lines.new", ROOT, b"lines")
    volume.write(lines, len(TINY), BIG)  # before the index hears of any of it
    volume.background()
    volume.sync(lines)
    work.must("lines", TINY + BIG)
    work.must("lines.new", None)


def removal_and_times(work: Work) -> None:
    gone, kept = work.new("gone", BIG), work.new("kept", SMALL)
    work.may("gone", None)
    work.volume.unlink(ROOT, b"gone")
    del gone
    work._now["@kept"] = {ABSENT, digest(b"", 7_000_000_007)}
    work.may("kept", SMALL)
    work.volume.setattr(kept, SetAttr(mtime_ns=7_000_000_007))
    work.volume.sync(kept)
    work._now["@kept"] = {digest(b"", 7_000_000_007)}
    work.must("gone", None)
    for number in range(8):
        work.new(f"short{number}", BIG, sync=False)  # the index never hears of it
        work.volume.unlink(ROOT, f"short{number}".encode())
    for _ in range(3):  # removed, forgotten, and that on the disk
        work.volume.background()
    for number in range(8):
        work.must(f"short{number}", None)


def fill(volume: Volume, staged: Inode, content: bytes) -> None:
    """As the S3 door does."""
    for start in range(0, len(content), 16_000):
        volume.pour(staged, content[start : start + 16_000])
    volume.sync(staged)


def objects(work: Work) -> None:
    volume = work.volume
    work.may("bucket", ANY)
    bucket = volume.create_bucket(b"bucket", 0, 0).inode
    for content in (BIG, TINY, OTHER):
        work.may("bucket/key", content)
        staged = volume.stage(0, 0)
        fill(volume, staged, content)
        volume.publish(staged, bucket, [b"key"], S3Record(etag="e"))
        volume.commit()
        work.must("bucket/key", content)
    parts = []
    for content in (BIG, TINY, OTHER):
        parts.append(volume.stage(0, 0))
        volume.pour(parts[-1], content)
    work.may("bucket/key", BIG + TINY + OTHER)
    whole = volume.stage(0, 0)
    volume.concat(whole, [(inode, 0, volume.getattr(inode).size) for inode in parts])
    for inode in parts:
        volume.discard(inode)
    volume.publish(whole, bucket, [b"key"], S3Record(etag="e"))
    volume.commit()
    work.must("bucket/key", BIG + TINY + OTHER)
    work.may("bucket/key", BIG + TINY * 2 + OTHER[len(TINY) :])
    volume.write(whole, len(BIG + TINY), TINY)
    volume.sync(whole)
    work.must("bucket/key", BIG + TINY * 2 + OTHER[len(TINY) :])
    work.may("bucket/key", TINY + (BIG + TINY * 2 + OTHER[len(TINY) :])[len(TINY) :])
    volume.write(whole, 0, TINY)  # what other files share is not changed in place; nobody asks for it to be durable
    volume.background()
    volume.background()


def packed_bytes(work: Work) -> None:
    volume = work.volume
    work.pack()
    inodes = [volume.lookup(ROOT, name).inode for name in (b"big", b"tiny", b"r1")]
    volume.evict(inodes)
    volume.background()
    content = BIG + SMALL
    assert work.packer.read(volume, inodes[0], 0, 100) == content[:100]
    assert work.packer.read(volume, inodes[2], 0, len(OTHER)) == OTHER  # nobody fsyncs it
    volume.background()
    volume.background()
    work.may("big", *(content[:at] + TINY + content[at + 4 :] for at in (500,)))
    volume.write(inodes[0], 500, TINY)
    volume.sync(inodes[0])
    work.must("big", content[:500] + TINY + content[504:])
    work.may("r2", ANY)
    volume.write(volume.lookup(ROOT, b"r2").inode, 0, b"T")
    work.may("r3", ANY)
    volume.write(volume.lookup(ROOT, b"r3").inode, 0, b"T")
    volume.background()
    volume.commit()


def little_goes_into_the_journal(work: Work) -> None:
    """Records of the journal, between commits that are on the disk and others that are not yet."""
    volume = work.volume
    for turn in range(1, 10):
        name = f"noted{turn}"
        inode = work.new(name, TINY)
        first, second = bytes([turn]) * 5000, bytes([100 + turn]) * 5000
        work.may(name, first)
        volume.write(inode, 0, first)
        volume.sync(inode)
        work.must(name, first)
        work.may(name, second, second[:4000] + TINY + second[4004:])
        volume.write(inode, 0, second)
        if turn % 2:
            with volume.lock:
                volume._commit_locked()  # as a thread does, which then begins to wait for the disk
        else:
            next(volume.sync_steps(inode), None)  # as another program's fsync, which waits for the disk now
        volume.write(inode, 4000, TINY)
        volume.sync(inode)
        work.must(name, second[:4000] + TINY + second[4004:])
        if turn % 3 == 0:
            work.may(name, None)
            volume.unlink(ROOT, name.encode())
            volume.sync(ROOT)
            work.must(name, None)
        if turn % 4 == 0:
            volume.background()


STEPS = (
    little_goes_into_the_journal,
    fsync_keeps_what_it_said,
    a_log_grows,
    a_rename_over_is_old_or_new,
    truncating_and_writing_anew,
    holes_and_replaced_names_keep_their_size,
    removal_and_times,
    objects,
    packed_bytes,
)


def main() -> None:
    directory, claims, packs = (Path(word) for word in sys.argv[1:])
    engine.WAL_CHECKPOINT, engine.WAL_SYNC_INTERVAL, engine.UNDOOM_INTERVAL = 300_000, 0.0, 0.0  # type: ignore[misc]
    work = Work(Volume(directory), claims, packs)
    for step in STEPS:
        step(work)
    os._exit(0)  # nothing is closed: the last state is a cut, too


if __name__ == "__main__":
    main()
