"""The volume and a plain directory, driven side by side; packs, evictions, restarts and crashes come in between.

After each crash the copy of the directory that a kill would have left is opened instead: everything was committed,
so nothing may be missing.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.volume.helpers import Packer, check, crash_copy, dump, evict_all
from tonfs.errors import FsError
from tonfs.ids import Inode
from tonfs.volume import SetAttr, Volume, contents, directories, inodes, sharing
from tonfs.volume.writeback import Batch

NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff\xfe", b"a-b"])
PATHS = st.lists(NAMES, min_size=1, max_size=3)
OFFSETS = st.sampled_from([0, 1, 100, 4095, 4096, 5000, 70_000, (1 << 20) - 1, 1 << 20])
DATA = st.binary(min_size=1, max_size=40) | st.sampled_from([b"x" * 4096, b"y" * 9000])
MODES = [0o600, 0o4755, 0o444] if os.geteuid() == 0 else [0o600, 0o755]
"""For others than root the kernel refuses writes and clears bits on the plain side; here that is the doors' work."""
Path_ = list[bytes]


class Mirror(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="tonfs-machine-"))
        self.plain = os.fsencode(self.base / "plain")
        os.mkdir(self.plain)
        self.round = 0
        directory = self.base / "volume0"
        directory.mkdir()
        self.volume = Volume(directory)
        self.packer = Packer()

    def teardown(self) -> None:
        self.volume.abandon()
        shutil.rmtree(self.base)

    # Doing the same thing twice ---------------------------------------------------------------------------------

    def real(self, path: Path_) -> bytes:
        return os.path.join(self.plain, *path)

    def parent(self, path: Path_) -> Inode:
        attr = self.volume.resolve(path[:-1])
        if stat.S_ISLNK(attr.mode):
            raise FsError("ends at a link that leads nowhere", errno.ENOENT)
        if not attr.is_dir:
            raise FsError("not a directory", errno.ENOTDIR)
        return attr.inode

    def both(self, ours: Callable[[], object], theirs: Callable[[], object]) -> bool:
        """True when both did it; a refusal must be the same one."""
        errors: list[int | None] = []
        for action in (ours, theirs):
            try:
                action()
                errors.append(None)
            except (FsError, OSError) as exc:
                # The volume does not follow symlinks (ELOOP); those of this test lead nowhere.
                errors.append(errno.ENOENT if exc.errno == errno.ELOOP else exc.errno)
        assert errors[0] == errors[1], f"volume {errors[0]}, directory {errors[1]}"
        return errors[0] is None

    # Rules ------------------------------------------------------------------------------------------------------

    @rule(path=PATHS)
    def create(self, path: Path_) -> None:
        self.both(
            lambda: self.volume.create(self.parent(path), path[-1], 0o644, os.geteuid(), os.getegid()),
            lambda: os.close(os.open(self.real(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)),
        )

    @rule(path=PATHS)
    def mkdir(self, path: Path_) -> None:
        self.both(
            lambda: self.volume.mkdir(self.parent(path), path[-1], 0o755, 0, 0),
            lambda: os.mkdir(self.real(path), 0o755),
        )

    @rule(path=PATHS, goal=st.sampled_from([b"nowhere", b"/nowhere/at/all", b"x" * 200]))
    def symlink(self, path: Path_, goal: bytes) -> None:
        self.both(
            lambda: self.volume.symlink(self.parent(path), path[-1], goal, 0, 0),
            lambda: os.symlink(goal, self.real(path)),
        )

    def _file(self, path: Path_) -> Inode | None:
        try:
            attr = self.volume.resolve(path)
        except FsError:
            return None
        return attr.inode if attr.is_file else None

    @rule(path=PATHS, offset=OFFSETS, data=DATA)
    def write(self, path: Path_, offset: int, data: bytes) -> None:
        inode = self._file(path)
        if inode is None:
            return
        before = self.volume.getattr(inode).version
        self.volume.write(inode, offset, data)
        assert self.volume.getattr(inode).version > before
        with open(self.real(path), "r+b") as stream:
            stream.seek(offset)
            stream.write(data)

    @rule(path=PATHS, size=OFFSETS)
    def truncate(self, path: Path_, size: int) -> None:
        inode = self._file(path)
        if inode is not None:
            self.volume.truncate(inode, size)
            os.truncate(self.real(path), size)

    @rule(path=PATHS, mode=st.sampled_from(MODES))
    def chmod(self, path: Path_, mode: int) -> None:
        inode = self._file(path)
        if inode is not None:
            self.volume.setattr(inode, SetAttr(mode=mode))
            os.chmod(self.real(path), mode)

    @rule(old=PATHS, new=PATHS)
    def rename(self, old: Path_, new: Path_) -> None:
        self.both(
            lambda: self.volume.rename(self.parent(old), old[-1], self.parent(new), new[-1]),
            lambda: os.rename(self.real(old), self.real(new)),
        )

    @rule(old=PATHS, new=PATHS)
    def exchange(self, old: Path_, new: Path_) -> None:
        try:
            self.volume.rename(self.parent(old), old[-1], self.parent(new), new[-1], exchange=True)
        except FsError:
            return
        if old != new:
            spare = os.path.join(os.fsencode(self.base), b"spare")
            os.rename(self.real(old), spare)
            os.rename(self.real(new), self.real(old))
            os.rename(spare, self.real(new))

    @rule(old=PATHS, new=PATHS)
    def link(self, old: Path_, new: Path_) -> None:
        self.both(
            lambda: self.volume.link(self.volume.resolve(old).inode, self.parent(new), new[-1]),
            lambda: os.link(self.real(old), self.real(new), follow_symlinks=False),
        )

    @rule(path=PATHS)
    def unlink(self, path: Path_) -> None:
        self.both(lambda: self.volume.unlink(self.parent(path), path[-1]), lambda: os.unlink(self.real(path)))

    @rule(path=PATHS)
    def rmdir(self, path: Path_) -> None:
        self.both(lambda: self.volume.rmdir(self.parent(path), path[-1]), lambda: os.rmdir(self.real(path)))

    # What must change nothing -----------------------------------------------------------------------------------

    @rule(proven=st.sampled_from([0, 5]))
    def pack(self, proven: int) -> None:
        self.packer.pack_all(self.volume, proven)
        assert self.volume.counts().dirty == 0

    @rule()
    def evict(self) -> None:
        evict_all(self.volume)

    @rule()
    def background(self) -> None:
        self.volume.background()

    @rule()
    def restart(self) -> None:
        directory = self.volume.directory
        self.volume.close()
        self.volume = Volume(directory)

    @rule()
    def crash(self) -> None:
        self.volume.commit()
        self.round += 1
        copy = crash_copy(self.volume.directory, self.base / f"volume{self.round}")
        old = self.volume
        self.volume = Volume(copy)
        old.abandon()
        shutil.rmtree(old.directory)

    # Comparing --------------------------------------------------------------------------------------------------

    @invariant()
    def both_hold_the_same(self) -> None:
        assert dump(self.volume, self.packer) == self._dump_plain()

    @invariant()
    def the_index_agrees_with_itself(self) -> None:
        check(self.volume)

    def _dump_plain(self) -> dict[bytes, tuple[object, ...]]:
        out: dict[bytes, tuple[object, ...]] = {}
        for folder, _, _ in os.walk(self.plain):
            for entry in os.scandir(folder):
                info = entry.stat(follow_symlinks=False)
                what: object = None
                if entry.is_symlink():
                    what = os.readlink(entry.path)
                elif entry.is_file():
                    what = Path(os.fsdecode(entry.path)).read_bytes()
                links = None if entry.is_dir(follow_symlinks=False) else info.st_nlink
                path = os.path.relpath(entry.path, self.plain)
                out[path] = (stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode), links, what)
        return out

    @initialize()
    def begin(self) -> None:
        self.create([b"a"])


class Gate:
    """In the place of the lock that is held while a batch is written: who wants it waits until the batch is written."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.batch: Batch | None = None

    def acquire(self, blocking: bool = True) -> bool:
        if self.batch is not None:
            batch, self.batch = self.batch, None
            self.volume._write(batch)
        return True

    def release(self) -> None:
        pass

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        pass


class Crowded(Mirror):
    """The same where hardly anything fits into memory, and batches are often on their way to the index."""

    LIMITS: ClassVar = (
        (inodes, "NODE_CACHE", 2),
        (inodes, "NAME_CACHE", 2),
        (inodes, "DATA_CACHE", 10),
        (inodes, "MAX_WHOLE", 1),
        (directories, "MAX_WHOLE", 1),
        (directories, "PREFETCH", 0),
        (contents, "INLINE_MAX", 4500),
        (sharing, "INLINE_MAX", 4500),
        (contents, "WINDOW_SIZE", 60_000),
    )

    def __init__(self) -> None:
        self.before = [getattr(module, name) for module, name, _ in self.LIMITS]
        for module, name, value in self.LIMITS:
            setattr(module, name, value)
        super().__init__()
        self._gated()

    def teardown(self) -> None:
        super().teardown()
        for (module, name, _), value in zip(self.LIMITS, self.before, strict=True):
            setattr(module, name, value)

    def _gated(self) -> None:
        if not isinstance(self.volume._flushing, Gate):
            self.volume._flushing = Gate(self.volume)  # type: ignore[assignment]

    @rule()
    def the_index_agrees_with_itself(self) -> None:
        """Not after each step: it commits."""
        check(self.volume)

    @rule()
    def a_batch_is_on_its_way(self) -> None:
        self._gated()
        gate = self.volume._flushing
        assert isinstance(gate, Gate)
        with gate, self.volume.lock:
            gate.batch = self.volume._take()

    @invariant()
    def always_short_of_memory(self) -> None:
        """(Invariants are looked at in the order of their names.)"""
        with self.volume.lock:
            self.volume._names_kept += 10
            self.volume._data_kept += 100
            self.volume._shrink_cache()

    @rule(old=PATHS, new=PATHS, offset=OFFSETS)
    def clone(self, old: Path_, new: Path_, offset: int) -> None:
        """What `concat` makes of a file is an equal file."""
        inode = self._file(old)
        if inode is None or self._file(new) is not None:
            return
        size = self.volume.getattr(inode).size
        cut = min(offset, size)
        staged = self.volume.stage(os.geteuid(), os.getegid())
        self.volume.concat(staged, [(inode, 0, cut), (inode, cut, size - cut)])
        try:
            parent = self.parent(new)
            self.volume._node(staged).nlink = 0
            with self.volume.lock, self.volume._atomic():
                node = self.volume._node(staged)
                if self.volume._find(parent, new[-1]) is not None:
                    raise FsError("taken", errno.EEXIST)
                node.nlink = 1
                self.volume._add_name(self.volume._live_dir(parent), new[-1], node)
        except FsError:
            self.volume.discard(staged)
            return
        self.volume.drop(staged)
        shutil.copyfile(self.real(old), self.real(new), follow_symlinks=False)
        os.chmod(self.real(new), 0o644)


TestMirror = Mirror.TestCase
TestCrowded = Crowded.TestCase
TestCrowded.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestMirror.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
