"""The same calls on a mount and on a plain directory: every mix of kinds in a rename, every call that takes a name,
positions of a large listing. What comes back is compared, not what we think of it."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.root
_libc = ctypes.CDLL(None, use_errno=True)
_libc.opendir.restype = _libc.readdir.restype = ctypes.c_void_p
_libc.telldir.restype = ctypes.c_long
for _name in ("readdir", "telldir", "rewinddir", "closedir"):
    getattr(_libc, _name).argtypes = [ctypes.c_void_p]
_libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
NAME_IN_DIRENT = 19

NOREPLACE, EXCHANGE = 1, 2


@pytest.fixture
def both(mnt: Path, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A folder of the mount and a plain one. The current directory is changed by the tests."""
    plain = tmp_path / "plain"
    plain.mkdir()
    (mnt / "ours").mkdir()
    before = os.getcwd()
    yield mnt / "ours", plain
    os.chdir(before)


def said(action: Callable[[], object]) -> object:
    try:
        return action()
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]


def compare(both: tuple[Path, Path], action: Callable[[], list[object]]) -> None:
    answers = []
    for root in both:
        os.chdir(root)
        answers.append(action())
    for ours, theirs in zip(*answers, strict=True):
        assert ours == theirs


def renameat2(old: bytes, new: bytes, flags: int) -> None:
    if _libc.renameat2(-100, old, -100, new, flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


KINDS: dict[str, Callable[[str], object]] = {
    "nothing": lambda path: None,
    "file": lambda path: Path(path).write_text("f"),
    "empty directory": os.mkdir,
    "directory": lambda path: os.makedirs(f"{path}/x"),
    "symlink": lambda path: os.symlink("nowhere", path),
    "fifo": os.mkfifo,
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "device": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
}


def look(path: str, counted: bool) -> object:
    """Of directories the links only where the plain file system counts them (btrfs does not)."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return None
    folder = stat.S_ISDIR(info.st_mode)
    return (
        info.st_mode,
        info.st_nlink if counted or not folder else 0,
        sorted(os.listdir(path)) if folder else info.st_size,
    )


def test_renames_of_every_kind_over_every_other(both: tuple[Path, Path]) -> None:
    counted = both[1].stat().st_nlink == 2

    def action() -> list[object]:
        out: list[object] = []
        for first, make_first in KINDS.items():
            for second, make_second in KINDS.items():
                for flags in (0, NOREPLACE, EXCHANGE, NOREPLACE | EXCHANGE, 8):
                    for target in ("p/b", "q/b"):
                        os.mkdir("p")
                        os.mkdir("q")
                        make_first("p/a")
                        make_second(target)
                        end = said(lambda target=target, flags=flags: renameat2(b"p/a", target.encode(), flags))  # type: ignore[misc]
                        seen = [look(path, counted) for path in ("p/a", target, "p", "q")]
                        out.append((first, second, flags, target, end, seen))
                        shutil.rmtree("p")
                        shutil.rmtree("q")
        return out

    compare(both, action)


def test_names_of_255_bytes_and_no_more_in_every_call(both: tuple[Path, Path]) -> None:
    fits, long = b"\xff\xfe\x80" * 85, b"\xff\xfe\x80" * 85 + b"x"
    calls: tuple[Callable[[bytes], object], ...] = (
        lambda name: os.close(os.open(name, os.O_CREAT | os.O_RDWR)),
        lambda name: os.stat(name).st_size,
        lambda name: os.setxattr(name, "user.x", b"1"),
        lambda name: os.getxattr(name, "user.x"),
        lambda name: os.listxattr(name),
        lambda name: os.removexattr(name, "user.x"),
        lambda name: os.chmod(name, 0o600),
        lambda name: os.chown(name, 1, 1),
        lambda name: os.truncate(name, 3),
        lambda name: os.utime(name, ns=(1, 2)),
        lambda name: os.link(name, b"second"),
        lambda name: os.rename(name, b"moved"),
        lambda name: os.rename(b"moved", name),
        lambda name: renameat2(b"second", name, NOREPLACE),
        lambda name: renameat2(b"second", name, EXCHANGE),
        lambda name: renameat2(name, b"second", EXCHANGE),
        lambda name: os.listdir(b".").count(name),
        lambda name: os.unlink(name),
        lambda name: os.mkdir(name),
        lambda name: os.listdir(name),
        lambda name: os.rmdir(name),
        lambda name: os.symlink(b"goal", name),
        lambda name: os.readlink(name),
        lambda name: os.unlink(name),
        lambda name: os.mkfifo(name),
        lambda name: os.unlink(name),
        lambda name: os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
        lambda name: os.unlink(name),
        lambda name: os.link(b"second", name),
        lambda name: os.statvfs(name).f_namemax,
    )

    def action() -> list[object]:
        return [(n, said(lambda call=call, name=name: call(name)))  # type: ignore[misc]
                for n, call in enumerate(calls) for name in (fits, long)]  # fmt: skip

    compare(both, action)


def test_positions_of_a_listing_outlive_names_that_go_and_come(mnt: Path) -> None:
    """telldir, seekdir, rewinddir: what is there all the time is met once, from every position what followed it."""
    count, rng = 10_000, random.Random(1)
    for number in range(count):
        os.close(os.open(mnt / f"n{number:05}", os.O_CREAT | os.O_WRONLY))
    listing = _libc.opendir(os.fsencode(mnt))

    def entry() -> str:
        found = _libc.readdir(listing)
        return ctypes.string_at(found + NAME_IN_DIRENT).decode() if found else ""

    try:
        positions, names = [_libc.telldir(listing)], [entry()]
        while names[-1]:
            positions.append(_libc.telldir(listing))
            names.append(entry())
        assert len(set(names)) == len(names) == count + 3, "with '.', '..' and the end"
        assert len(set(positions)) == len(positions)
        for place in rng.sample(range(count), 100):
            _libc.seekdir(listing, positions[place])
            assert entry() == names[place]

        _libc.rewinddir(listing)
        met: list[str] = []
        while name := entry():
            met.append(name)
            if len(met) % 10 == 0:  # names with even numbers go, new ones come
                (mnt / f"n{rng.randrange(0, count, 2):05}").unlink(missing_ok=True)
                (mnt / f"new{len(met)}").touch()
        stayed = [name for name in met if name.startswith("n0") and int(name[1:]) % 2]
        assert len(set(met)) == len(met)
        assert len(stayed) == count // 2

        there = set(os.listdir(mnt))
        for place in rng.sample(range(count), 100):
            _libc.seekdir(listing, positions[place])
            expected = next(name for name in names[place:] if name in there or name in (".", ".."))
            assert entry() == expected, "a position whose name went leads to the one behind it"
    finally:
        _libc.closedir(listing)


def test_as_many_attributes_as_the_kernel_lists(mnt: Path) -> None:
    path = mnt / "f"
    path.touch()
    names = [f"user.{number:03}" + "x" * 247 for number in range(256)]
    for name in names:
        os.setxattr(path, name, b"")
    assert sorted(os.listxattr(path)) == names
    assert said(lambda: os.setxattr(path, "user.one-more", b"")) == "ENOSPC"
    assert said(lambda: os.setxattr(path, "user.", b"")) == "EINVAL"
    os.setxattr(path, names[0], b"x" * 65536)
    assert os.getxattr(path, names[0]) == b"x" * 65536
    assert said(lambda: os.setxattr(path, names[0], b"x" * 65537)) == "E2BIG"
