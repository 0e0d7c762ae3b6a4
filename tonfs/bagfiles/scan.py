"""Which files of a tree become a bag, under which names, in which order (reference protocol 1.7).

Two creators are known and differ in habits; both are reproduced, chosen by the order: `walk` is that of
tonutils-storage (Go), `sorted` that of storage-daemon (C++).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ..errors import NotFound, Refused, UsageError

Order = Literal["walk", "sorted"]

_IGNORED: Final = frozenset({b"desktop.ini", b"thumbs.db"})


def _ignored(name: bytes) -> bool:
    return name == b".DS_Store" or name.lower() in _IGNORED


@dataclass(frozen=True)
class ScannedFile:
    """`name` as it will stand in the header; `size` and `mtime_ns` as seen by the scan."""

    name: bytes
    path: Path
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class ScannedTree:
    """`dir_name` is empty for a single file, else the folder's name with a `/` behind it."""

    root: Path
    dir_name: bytes
    files: tuple[ScannedFile, ...]

    @property
    def data_size(self) -> int:
        return sum(entry.size for entry in self.files)

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
        return ScannedTree(root, b"", (_entry(os.fsencode(root.name), root),))
    if not root.is_dir() or root.is_symlink():
        raise Refused(f"{root} is neither a file nor a folder.", hint="Name the folder itself, not a link to it.")
    files = _walk(root) if order == "walk" else _sorted(root)
    if not files:
        raise Refused(f"There are no files in {root}.", hint="A bag holds at least one file; empty folders vanish.")
    return ScannedTree(root, _dir_name(root, order), tuple(files))


def _dir_name(root: Path, order: Order) -> bytes:
    name = os.fsencode(root.name)
    if not name:
        raise UsageError("The root of the file system cannot be a bag.")
    if order == "walk" and name.startswith(b"."):
        return b""
    return name + b"/"


def _entry(name: bytes, path: Path) -> ScannedFile:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Refused(f"{path} is not a regular file.", hint="Bags hold files only; leave it out of the folder.")
    return ScannedFile(name, path, status.st_size, status.st_mtime_ns)


def _walk(root: Path) -> list[ScannedFile]:
    """Go's order: entries of each folder sorted, a sub-folder descended at its place. Links to files are followed."""
    out: list[ScannedFile] = []
    stack: list[tuple[bytes, Path]] = [(b"", root)]
    while stack:
        name, path = stack.pop()
        if name and not (path.is_dir() and not path.is_symlink()):
            if _ignored(name):  # the whole relative name: only files at the top
                continue
            if path.is_symlink() and not path.is_file():
                raise Refused(f"{path} is a link to a folder, or to nothing.", hint="Replace the link or leave it out.")
            out.append(_entry(name.replace(b"\\", b"/"), path))
            continue
        entries = sorted(os.listdir(os.fsencode(path)), reverse=True)
        prefix = name + b"/" if name else b""
        stack.extend((prefix + entry, path / os.fsdecode(entry)) for entry in entries)
    return out


def _sorted(root: Path) -> list[ScannedFile]:
    """C++'s order: full names sorted as bytes. Links and special files are left out."""
    out: list[ScannedFile] = []
    top = os.fsencode(root)
    for folder, _, names in os.walk(top):
        prefix = folder[len(top) + 1 :] + b"/" if len(folder) > len(top) else b""
        for name in names:
            path = Path(os.fsdecode(os.path.join(folder, name)))
            if _ignored(name) or path.is_symlink() or not path.is_file():
                continue
            out.append(_entry(prefix + name, path))
    return sorted(out, key=lambda entry: entry.name)
