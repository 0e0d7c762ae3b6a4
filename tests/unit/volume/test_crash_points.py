"""A kill between any two steps that touch the disk: what is opened afterwards is whole.

Every call that changes a content file or commits the index takes a copy of the volume's directory before and after.
Each copy is opened, checked, and compared with what may be there; then everything that packs hold is evicted and read
again, which must not change a byte.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.volume.helpers import Packer, check, crash_copy, dump, evict_all
from tonfs.ids import Inode
from tonfs.volume import ROOT, S3Record, Volume
from tonfs.volume.content import ContentStore
from tonfs.volume.core import Core

A, B, C = b"A" * 9000, b"B" * 12_000, b"C" * 100
ABSENT = None
Allowed = dict[bytes, set[bytes | None]]


class Kills:
    """Copies of a volume at every step, each with what it may hold."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base = base
        self.monkeypatch = monkeypatch
        self.seen = ("", "")
        self.copies: list[tuple[str, Path, Allowed]] = []
        self.allowed: Allowed = {}
        self.packer = Packer()
        directory = base / "volume"
        directory.mkdir()
        self.volume = Volume(directory)
        for owner, name in (
            (ContentStore, "write"),
            (ContentStore, "truncate"),
            (ContentStore, "create"),
            (ContentStore, "remove"),
            (ContentStore, "punch"),
            (Core, "_commit_locked"),
            (Core, "_sync_wal"),
            (Core, "_reap"),
        ):
            monkeypatch.setattr(owner, name, self._watched(name, getattr(owner, name)))

    def _watched(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.copy(f"before {name}")
            result = original(*args, **kwargs)
            self.copy(f"after {name}")
            return result

        return call

    def copy(self, when: str) -> None:
        if self.base.joinpath("verifying").exists():
            return
        digest = hashlib.blake2b()
        for path in sorted(self.volume.directory.rglob("*")):
            if path.is_file() and path.name not in ("ballast", "index.db-shm"):
                digest.update(repr((path, path.stat().st_blocks)).encode() + path.read_bytes())
        state = (digest.hexdigest(), repr(self.allowed))
        if state == self.seen and when != "held":
            return
        self.seen = state
        target = self.base / f"copy{len(self.copies)}"
        crash_copy(self.volume.directory, target)
        self.copies.append((when, target, {path: set(contents) for path, contents in self.allowed.items()}))

    def may(self, path: bytes, *contents: bytes | None) -> None:
        """From now on these are possible, too."""
        self.allowed.setdefault(path, {ABSENT}).update(contents)

    def must(self, path: bytes, content: bytes | None) -> None:
        """It was acknowledged: nothing else is possible any more."""
        self.allowed[path] = {content}

    def new(self, name: bytes, content: bytes) -> Inode:
        self.may(name, ABSENT, b"", content)
        inode = self.volume.create(ROOT, name, 0o644, 0, 0).inode
        self.volume.write(inode, 0, content)
        self.volume.sync(inode)
        self.must(name, content)
        return inode

    def verify(self) -> int:
        """Open every copy. Number of copies looked at."""
        self.volume.close()
        (self.base / "verifying").touch()
        for sync in ("fsync", "fdatasync"):  # nobody pulls the plug any more
            self.monkeypatch.setattr(os, sync, lambda _fd: None)
        for when, directory, allowed in self.copies:
            volume = Volume(directory)
            try:
                check(volume)
                found = {path: row[3] for path, row in dump(volume, self.packer).items()}
                for path, contents in allowed.items():
                    assert found.get(path, ABSENT) in contents, f"{when}: {path!r} is wrong"
                assert set(found) <= set(allowed), f"{when}: something is there that never was"
                evict_all(volume)
                check(volume)
                after = {path: row[3] for path, row in dump(volume, self.packer).items()}
                assert after == found, f"{when}: eviction changed bytes"
            finally:
                volume.abandon()
        return len(self.copies)


@pytest.fixture
def kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kills:
    return Kills(tmp_path, monkeypatch)


def test_writing_and_extending_a_file(kills: Kills) -> None:
    inode = kills.new(b"f", A)
    kills.may(b"f", A + C)
    kills.volume.write(inode, len(A), C)
    kills.volume.background()
    kills.volume.sync(inode)
    kills.must(b"f", A + C)
    kills.copy("after sync")
    assert kills.verify() >= 6


def test_overwriting_packed_bytes_never_leaves_an_extent_that_lies(kills: Kills) -> None:
    inode = kills.new(b"f", A)
    kills.packer.pack_all(kills.volume)
    kills.may(b"f", C + A[len(C) :])
    kills.volume.write(inode, 0, C)
    kills.volume.background()
    kills.copy("end")
    kills.verify()


def test_overwriting_bytes_that_are_only_remote(kills: Kills) -> None:
    inode = kills.new(b"f", A)
    kills.packer.pack_all(kills.volume)
    kills.volume.evict([inode])
    kills.may(b"f", A[:50] + C + A[150:])
    kills.volume.write(inode, 50, C)
    kills.volume.commit()
    kills.must(b"f", A[:50] + C + A[150:])
    kills.copy("end")
    kills.verify()


def test_fetched_bytes_and_a_second_eviction(kills: Kills) -> None:
    inode = kills.new(b"f", A)
    kills.packer.pack_all(kills.volume)
    kills.volume.evict([inode])
    assert kills.packer.read(kills.volume, inode, 100, 200) == A[100:300]
    kills.volume.background()
    kills.volume.evict([inode])
    kills.copy("end")
    kills.verify()


def test_eviction_beside_unpacked_bytes_gives_blocks_back_only_after_the_index_says_so(kills: Kills) -> None:
    content = b"0123456789abcdef" * (3 << 16)  # 3 MiB; a write makes the megabyte around it unpacked
    inode = kills.new(b"f", content)
    kills.packer.pack_all(kills.volume)
    kills.may(b"f", b"NEW" + content[3:])
    kills.volume.write(inode, 0, b"NEW")
    kills.volume.sync(inode)
    kills.must(b"f", b"NEW" + content[3:])
    assert kills.volume.evict([inode]).bytes > 0
    kills.copy("end")
    assert any(when == "after punch" for when, _, _ in kills.copies)
    kills.verify()


def test_truncating_packed_and_unpacked_files(kills: Kills) -> None:
    packed, plain = kills.new(b"packed", A), kills.new(b"plain", B)
    kills.packer.pack_all(kills.volume)
    kills.volume.write(plain, 0, B)
    kills.volume.sync(plain)
    for name, inode, content in ((b"packed", packed, A), (b"plain", plain, B)):
        kills.may(name, content[:10], content[:10] + bytes(90))
        kills.volume.truncate(inode, 10)
        kills.volume.truncate(inode, 100)
        kills.volume.sync(inode)
        kills.must(name, content[:10] + bytes(90))
    kills.copy("end")
    kills.verify()


def test_a_rename_over_another_file_is_old_or_new(kills: Kills) -> None:
    kills.new(b"f", A)
    kills.may(b"t", b"", B)
    new = kills.volume.create(ROOT, b"t", 0o644, 0, 0).inode
    kills.volume.write(new, 0, B)
    kills.may(b"f", B)
    kills.volume.rename(ROOT, b"t", ROOT, b"f")
    kills.volume.commit()
    kills.must(b"f", B)
    kills.must(b"t", ABSENT)
    kills.copy("end")
    kills.verify()


def test_an_object_is_replaced_as_a_whole(kills: Kills) -> None:
    bucket = kills.volume.create_bucket(b"bucket", 0, 0).inode
    kills.must(b"bucket", None)
    kills.may(b"bucket/d", None)
    for content in (A, B):
        kills.may(b"bucket/d/k", content)
        staged = kills.volume.stage(0, 0)
        kills.volume.write(staged, 0, content)
        kills.volume.publish(staged, bucket, [b"d", b"k"], S3Record(etag="e"))
        kills.volume.commit()
        kills.must(b"bucket/d/k", content)
    kills.may(b"bucket/d/k", ABSENT)
    assert kills.volume.remove_object(bucket, [b"d", b"k"])
    kills.volume.commit()
    kills.must(b"bucket/d/k", ABSENT)
    kills.copy("end")
    kills.verify()


def test_removal_while_held_and_after(kills: Kills) -> None:
    inode = kills.new(b"f", A)
    kills.volume.hold(inode)
    kills.may(b"f", ABSENT)
    kills.volume.unlink(ROOT, b"f")
    kills.volume.commit()
    kills.must(b"f", ABSENT)
    assert kills.volume.read(inode, 0, 10).data == A[:10]
    kills.copy("held")
    kills.volume.drop(inode)
    kills.volume.commit()
    kills.copy("end")
    assert not kills.volume.content.path(inode).exists()
    kills.verify()
    for when, directory, _ in kills.copies:
        if when == "held" or directory == kills.copies[-1][1]:
            assert not list((directory / "content").rglob("?")), "an orphan's bytes stay on the disk"
