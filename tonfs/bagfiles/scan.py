"""Which files of a tree become a bag, under which names, in which order (reference protocol 1.7).

Two creators are known and differ in habits; both are reproduced, chosen by the order: `walk` is that of
tonutils-storage (Go), `sorted` that of storage-daemon (C++).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from ..errors import NotFound, Refused, UsageError

Order = Literal["walk", "sorted"]

_IGNORED: Final = frozenset({b"desktop.ini", b"thumbs.db"})


def _ignored(name: bytes) -> bool:
    return name == b".DS_Store" or name.lower() in _IGNORED


@dataclass(frozen=True)
class ScannedFiles:
    """Files in the order of the stream, as columns (a million objects are slow to make and heavy to keep).

    `names` as they will stand in the header, `places`: absolute paths; `sizes` and `times` of change in ns as the scan
    saw them.
    """

    names: list[bytes] = field(default_factory=list)
    places: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    def add(self, name: bytes, place: bytes, status: os.stat_result) -> None:
        """Raises Refused for what is not a regular file."""
        if not stat.S_ISREG(status.st_mode):
            raise Refused(
                f"{os.fsdecode(place)} is not a regular file.",
                hint="Bags hold files only; leave it out of the folder.",
            )
        self.names.append(name)
        self.places.append(place)
        self.sizes.append(status.st_size)
        self.times.append(status.st_mtime_ns)

    def path(self, number: int) -> Path:
        return Path(os.fsdecode(self.places[number]))


@dataclass(frozen=True)
class ScannedTree:
    """`dir_name` is empty for a single file, else the folder's name with a `/` behind it."""

    root: Path
    dir_name: bytes
    files: ScannedFiles

    @property
    def data_size(self) -> int:
        return sum(self.files.sizes)

    @property
    def data_root(self) -> Path:
        """`data_root / dir_name / name` is where each file lies."""
        return self.root.parent if self.dir_name or not self.root.is_dir() else self.root


def scan(path: Path, order: Order = "walk") -> ScannedTree:
    """List what a bag of `path` holds.

    Raises NotFound, and Refused for what the creators refuse: no files at all, and with `walk` links to folders,
    dangling links and unreadable files.
    """
    root = Path(os.path.abspath(path))
    if not root.exists():
        raise NotFound(f"There is nothing at {root}.")
    if root.is_file():
        files = ScannedFiles()
        files.add(os.fsencode(root.name), os.fsencode(root), root.stat())
        return ScannedTree(root, b"", files)
    if not root.is_dir() or root.is_symlink():
        raise Refused(f"{root} is neither a file nor a folder.", hint="Name the folder itself, not a link to it.")
    place, dir_name = os.fsencode(root), _dir_name(root, order)
    files = _walk(place) if order == "walk" else _sorted(place)
    if not files.names:
        raise Refused(f"There are no files in {root}.", hint="A bag holds at least one file; empty folders vanish.")
    return ScannedTree(root, dir_name, files)


def _dir_name(root: Path, order: Order) -> bytes:
    name = os.fsencode(root.name)
    if not name:
        raise UsageError("The root of the file system cannot be a bag.")
    if order == "walk" and name.startswith(b"."):
        return b""
    return name + b"/"


def _listed(place: bytes) -> Iterator[os.DirEntry[bytes]]:
    """The entries of a folder, sorted by name. Raises Refused."""
    try:
        with os.scandir(place) as entries:
            return iter(sorted(entries, key=lambda entry: entry.name))
    except OSError as exc:
        raise Refused(f"{os.fsdecode(place)} cannot be read: {exc.strerror}.") from None


def _walk(root: bytes) -> ScannedFiles:
    """Go's order: entries of each folder sorted, a sub-folder descended at its place. Links to files are followed."""
    out = ScannedFiles()
    stack = [(b"", _listed(root))]
    while stack:
        prefix, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        name = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            stack.append((name + b"/", _listed(entry.path)))
        elif not _ignored(name):  # the whole relative name: only files at the top
            if entry.is_symlink() and not os.path.isfile(entry.path):
                raise Refused(
                    f"{os.fsdecode(entry.path)} is a link to a folder, or to nothing.",
                    hint="Replace the link or leave it out.",
                )
            out.add(name.replace(b"\\", b"/"), entry.path, entry.stat())
    return out


def _sorted(root: bytes) -> ScannedFiles:
    """C++'s order: full names sorted as bytes. Links and special files are left out."""
    out = ScannedFiles()
    stack = [(b"", _listed(root))]
    while stack:
        prefix, entries = stack.pop()
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                stack.append((prefix + entry.name + b"/", _listed(entry.path)))
            elif not _ignored(entry.name) and entry.is_file(follow_symlinks=False):
                out.add(prefix + entry.name, entry.path, entry.stat(follow_symlinks=False))
    rows = sorted(zip(out.names, out.places, out.sizes, out.times, strict=True))
    return ScannedFiles(*(list(column) for column in zip(*rows, strict=True)))
