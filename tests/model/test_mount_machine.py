"""A real mount and a plain directory, driven side by side by the same system calls.

Between the steps come what must change nothing: caches dropped, files packed and evicted (and read back through an
agent), a remount, `kill -9` of the serving process after a commit. A kill without a commit may lose the last moments,
but the names must then be those of one moment of the past: each operation whole or not at all, in order.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fuse.front import Mounted
from tests.fuse.test_lifecycle import pack_and_evict, serving
from tests.unit.front.fake_agent import FakeAgent
from tonfs.fuse import find_mount
from tonfs.ids import BagId

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

NAMES = st.sampled_from(["a", "b", "c", "\udcff\udcfe", "n" * 255])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
OFFSETS = st.sampled_from([0, 1, 100, 4095, 4096, 5000, 70_000, (1 << 20) - 1, 1 << 20, (1 << 31) + 5])
DATA = st.binary(min_size=1, max_size=40) | st.sampled_from([b"x" * 4096, b"y" * 9000, b"z" * 200_000])
FLAGS = st.sampled_from([os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_RDWR | os.O_TRUNC, os.O_RDWR | os.O_SYNC])
XATTRS = st.sampled_from(["user.one", "trusted.two", "user." + "k" * 240])
TAIL = 1 << 16
"""Of a large file its end is compared, not the gigabytes of nothing before."""
RESTARTS, EVICTIONS, FORGETS = 1, 2, 2
"""In one example: they take long, and forgetting is felt by the whole machine."""
_libc = ctypes.CDLL(None, use_errno=True)
Tree = dict[str, tuple[object, ...]]


class World:
    """One mounted volume for all examples; each works in a folder of its own."""

    def __init__(self, base: Path) -> None:
        self.stage = Mounted(base, network="devnet")
        self.plain = base / "plain"
        self.packs: dict[BagId, bytes] = {}
        self.folders = 0
        self.gone: set[int] = set()
        """Numbers of files that are no more; no file may get one again."""
        self.stage.start("deadline=20s")

    def folder(self) -> str:
        self.folders += 1
        return f"example{self.folders}"


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("needs root and /dev/fuse")
    made = MountMirror.world = World(tmp_path_factory.mktemp("model"))
    agent = FakeAgent(made.stage.volume, made.packs)
    with serving(agent):
        yield
    made.stage._calm()
    if find_mount(str(made.stage.point)) is not None:
        subprocess.run(["umount", "-l", str(made.stage.point)], check=False)


def renameat2(old: str, new: str, flags: int) -> None:
    if _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def look(root: str) -> Tree:
    """path -> type and permissions, links, size, bytes or target, attributes."""
    out: Tree = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            what: object = None
            if stat.S_ISLNK(info.st_mode):
                what = os.readlink(path)
            elif stat.S_ISREG(info.st_mode):
                what = _ends(path, info.st_size)
                assert _ends(path, info.st_size, os.O_DIRECT) == what, "the kernel's pages are not what is stored"
            linked = not stat.S_ISDIR(info.st_mode)
            xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in _keys(path)}
            out[os.path.relpath(path, root)] = (
                info.st_mode, info.st_nlink if linked else 0, info.st_size if linked else 0, what, xattrs,
            )  # fmt: skip
    return out


def _ends(path: str, size: int, flags: int = 0) -> tuple[bytes, bytes]:
    fd = os.open(path, os.O_RDONLY | flags)
    try:
        return _read(fd, 0), _read(fd, max(0, size - TAIL) // 4096 * 4096)
    finally:
        os.close(fd)


def _read(fd: int, offset: int) -> bytes:
    buffer = mmap.mmap(-1, TAIL + 4096)  # O_DIRECT wants its memory aligned
    with buffer:
        return buffer[: os.preadv(fd, [buffer], offset)]


def _keys(path: str) -> list[str]:
    return sorted(k for k in os.listxattr(path, follow_symlinks=False) if k.startswith(("user.", "trusted.")))


def names(tree: Tree) -> dict[str, tuple[object, ...]]:
    return {path: (entry[0], entry[1]) for path, entry in tree.items()}


class MountMirror(RuleBasedStateMachine):
    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.restarts = self.evictions = self.forgets = 0
        self.handles: list[tuple[int, int]] = []
        self.fresh_folders()

    def fresh_folders(self) -> None:
        folder = self.world.folder()
        self.ours, self.theirs = str(self.world.stage.point / folder), str(self.world.plain / folder)
        os.makedirs(self.ours)
        os.makedirs(self.theirs)
        self.past: list[Tree] = []
        self.numbers: dict[int, int] = {}

    def teardown(self) -> None:
        self.close_all()
        shutil.rmtree(self.ours)
        shutil.rmtree(self.theirs)

    def close_all(self) -> None:
        for pair in self.handles:
            for fd in pair:
                with contextlib.suppress(OSError):  # the connection may be gone
                    os.close(fd)
        self.handles.clear()

    def both(self, action: Callable[[str], object], *paths: str) -> None:
        """The same call on both sides ends the same way."""
        ends: list[object] = []
        for root in (self.ours, self.theirs):
            try:
                ends.append(action(*(os.path.join(root, path) for path in paths)))
            except OSError as exc:
                ends.append(("errno", errno.errorcode[exc.errno or 0]))
        assert ends[0] == ends[1], f"tonfs {ends[0]!r}, plain {ends[1]!r}"

    # Names ------------------------------------------------------------------------------------------------------

    @rule(path=PATHS, mode=st.sampled_from([0o600, 0o644, 0o4755]))
    def create(self, path: str, mode: int) -> None:
        self.both(lambda p: os.close(os.open(p, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)), path)

    @rule(path=PATHS)
    def mkdir(self, path: str) -> None:
        self.both(os.mkdir, path)

    @rule(path=PATHS, kind=st.sampled_from([stat.S_IFIFO, stat.S_IFSOCK]))
    def mknod(self, path: str, kind: int) -> None:
        self.both(lambda p: os.mknod(p, kind | 0o600), path)

    @rule(path=PATHS, goal=st.sampled_from(["nowhere", "/nowhere/at/all", "x" * 200]))
    def symlink(self, path: str, goal: str) -> None:
        self.both(lambda p: os.symlink(goal, p), path)

    @rule(old=PATHS, new=PATHS)
    def link(self, old: str, new: str) -> None:
        self.both(lambda p, q: os.link(p, q, follow_symlinks=False), old, new)

    @rule(old=PATHS, new=PATHS, flags=st.sampled_from([0, 0, 1, 2]))
    def rename(self, old: str, new: str, flags: int) -> None:
        self.both(lambda p, q: renameat2(p, q, flags), old, new)

    @rule(path=PATHS)
    def unlink(self, path: str) -> None:
        self.both(os.unlink, path)

    @rule(path=PATHS)
    def rmdir(self, path: str) -> None:
        self.both(os.rmdir, path)

    # Bytes and attributes ---------------------------------------------------------------------------------------

    @rule(path=PATHS, flags=FLAGS)
    def open(self, path: str, flags: int) -> None:
        if len(self.handles) < 4 and os.path.isfile(os.path.join(self.theirs, path)):
            pair = tuple(os.open(os.path.join(root, path), flags) for root in (self.ours, self.theirs))
            self.handles.append((pair[0], pair[1]))

    def each(self, which: int, action: Callable[[int], object]) -> None:
        if self.handles:
            pair = self.handles[which % len(self.handles)]
            assert action(pair[0]) == action(pair[1])

    @rule(which=st.integers(0, 3), offset=OFFSETS, data=DATA)
    def pwrite(self, which: int, offset: int, data: bytes) -> None:
        self.each(which, lambda fd: os.pwrite(fd, data, offset))

    @rule(which=st.integers(0, 3), offset=OFFSETS)
    def pread(self, which: int, offset: int) -> None:
        self.each(which, lambda fd: (os.pread(fd, 5000, offset), os.fstat(fd).st_size, os.fstat(fd).st_nlink))

    @rule(
        which=st.integers(0, 3),
        data=st.sampled_from([b"x" * 4096, b"y" * 9000, b"z" * 200_000]),
        sizes=st.sampled_from([(1, 5000), (100, 70_000), (4096, 1 << 20), (0, 100), (5000, 4095, 9000)]),
    )
    def cut_and_grow(self, which: int, data: bytes, sizes: tuple[int, ...]) -> None:
        """What was cut off and grown again reads as zeros."""
        self.each(which, lambda fd: [os.pwrite(fd, data, 0), os.fsync(fd), *(os.ftruncate(fd, size) for size in sizes)])

    @rule(which=st.integers(0, 3), data=st.binary(min_size=1, max_size=40))
    def write_by_map(self, which: int, data: bytes) -> None:
        def write(fd: int) -> None:
            if 0 < os.fstat(fd).st_size < 1 << 30:
                with mmap.mmap(fd, 0) as view:
                    view[: len(data)] = data[: len(view)]
                    view.flush()

        self.each(which, write)

    @rule(which=st.integers(0, 3))
    def fsync(self, which: int) -> None:
        self.each(which, os.fsync)

    @rule(which=st.integers(0, 3))
    def close(self, which: int) -> None:
        if self.handles:
            for fd in self.handles.pop(which % len(self.handles)):
                os.close(fd)

    @rule(path=PATHS, size=OFFSETS)
    def truncate(self, path: str, size: int) -> None:
        if not os.path.islink(os.path.join(self.theirs, path)) and os.path.isfile(os.path.join(self.theirs, path)):
            self.both(lambda p: os.truncate(p, size), path)

    @rule(path=PATHS, mode=st.sampled_from([0o600, 0o2755, 0o444]), owner=st.sampled_from([0, 1000]))
    def change_owner_and_mode(self, path: str, mode: int, owner: int) -> None:
        def change(p: str) -> None:
            os.chown(p, owner, owner, follow_symlinks=False)
            if not os.path.islink(p):
                os.chmod(p, mode)

        self.both(change, path)

    @rule(path=PATHS, when=st.sampled_from([-1, 0, 1_700_000_000_123_456_789, 1 << 33]))
    def utime(self, path: str, when: int) -> None:
        def change(p: str) -> int:
            os.utime(p, ns=(when, when), follow_symlinks=False)
            return os.lstat(p).st_mtime_ns

        self.both(change, path)

    @rule(path=PATHS, key=XATTRS, value=st.sampled_from([b"", b"v", b"w" * 2000]))
    def setxattr(self, path: str, key: str, value: bytes) -> None:
        if not os.path.islink(os.path.join(self.theirs, path)):
            self.both(lambda p: os.setxattr(p, key, value), path)

    @rule(path=PATHS, key=XATTRS)
    def removexattr(self, path: str, key: str) -> None:
        if not os.path.islink(os.path.join(self.theirs, path)):
            self.both(lambda p: os.removexattr(p, key), path)

    # What must change nothing -----------------------------------------------------------------------------------

    @precondition(lambda self: self.forgets < FORGETS)
    @rule()
    def forget_caches(self) -> None:
        self.forgets += 1
        self.world.stage.drop_caches()

    @precondition(lambda self: self.evictions < EVICTIONS)
    @rule()
    def evict(self) -> None:
        self.evictions += 1
        subprocess.run(["sync", "-f", self.ours], check=True)
        self.world.packs.update(pack_and_evict(self.world.stage))

    @precondition(lambda self: self.restarts < RESTARTS)
    @rule()
    def remount(self) -> None:
        self.restarts += 1
        self.close_all()
        self.world.stage.stop()
        self.world.stage.start("deadline=20s")

    @precondition(lambda self: self.restarts < RESTARTS)
    @rule()
    def kill_after_a_commit(self) -> None:
        self.restarts += 1
        subprocess.run(["sync", "-f", self.ours], check=True)
        self.world.stage.call("commit")
        self.world.stage.kill()
        self.close_all()
        self.world.stage.start("deadline=20s")

    @precondition(lambda self: self.restarts < RESTARTS)
    @rule()
    def kill(self) -> None:
        self.restarts += 1
        self.world.stage.kill()
        self.close_all()
        self.world.stage.start("deadline=20s")
        # The folder itself may be what was lost.
        left = names(look(self.ours)) if os.path.isdir(self.ours) else {}
        assert left in [{}, *(names(tree) for tree in self.past)], "these names were never there together"
        shutil.rmtree(self.ours, ignore_errors=True)
        shutil.rmtree(self.theirs)
        self.fresh_folders()

    # Comparing --------------------------------------------------------------------------------------------------

    @invariant()
    def both_hold_the_same(self) -> None:
        tree = look(self.ours)
        assert tree == look(self.theirs)
        self.past.append(tree)

    @invariant()
    def inode_numbers_stay_and_never_come_again(self) -> None:
        pairs: dict[int, int] = {}
        for path in [*self.past[-1], *self.handles]:
            if isinstance(path, str):
                theirs, ours = (os.lstat(os.path.join(root, path)).st_ino for root in (self.theirs, self.ours))
            else:
                theirs, ours = os.fstat(path[1]).st_ino, os.fstat(path[0]).st_ino
            assert pairs.setdefault(theirs, ours) == ours, "one file, two numbers"
        assert len(set(pairs.values())) == len(pairs), "two files, one number"
        for theirs, ours in pairs.items():
            assert self.numbers.get(theirs, ours) == ours, "a file's number has changed"
            assert ours not in self.world.gone, "a number was used again"
        self.world.gone.update(set(self.numbers.values()) - set(pairs.values()))
        self.numbers = pairs

    @initialize()
    def begin(self) -> None:
        self.create("a", 0o644)
        self.open("a", os.O_RDWR)
        self.cut_and_grow(0, b"y" * 9000, (100, 70_000))


TestMountMirror = MountMirror.TestCase
TestMountMirror.settings = settings(
    max_examples=4, stateful_step_count=50, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
