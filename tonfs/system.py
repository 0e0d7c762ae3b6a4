"""What the system and SQLite refuse, as errors of the tree: a full disk and a missing permission are no mystery."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from .errors import OTHER_USER, Damaged, NoSpace, Refused, TonfsError

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_MAKE_ROOM: Final = "Free some space there, then try again."
_SQLITE_FORBIDDEN: Final = (3, 8, 14, 23)
"""SQLITE_PERM, READONLY, CANTOPEN, AUTH."""
_SQLITE_IOERR: Final = 10
_SQLITE_FULL: Final = 13
_HARDLY_ANY: Final = 64 << 10
"""Bytes; with less free, SQLite's "disk I/O error" means that its shared memory did not fit."""


def from_os(exc: OSError, what: str = "") -> TonfsError:
    """What the system said, by its kind. `what`: the sentence that it is the reason of, without a full stop."""
    file = exc.filename or exc.filename2
    reason = "the disk is full" if exc.errno == errno.ENOSPC else str(exc.strerror or exc)
    text = f"{what or file}: {reason}" if what or file else reason[:1].upper() + reason[1:]
    text += f" ({file})." if what and file and str(file) not in what else "."
    if exc.errno in FULL:
        return NoSpace(text, hint=_MAKE_ROOM)
    if exc.errno == errno.EROFS:
        return Refused(text, hint="Make that file system writable first, or use a copy on another.")
    return Refused(text, hint=OTHER_USER) if exc.errno in FORBIDDEN else TonfsError(text)


def from_sqlite(exc: Exception, path: Path, what: str = "") -> TonfsError:
    """A database of ours that SQLite cannot open or use: Damaged, unless the disk or a permission is the reason."""
    text = f"{what or path} cannot be opened: {exc}."
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code == _SQLITE_FULL or (code == _SQLITE_IOERR and is_full(path.parent)):
        return NoSpace(f"{what or path} cannot be opened: the disk is full.", hint=_MAKE_ROOM)
    if code in _SQLITE_FORBIDDEN:
        return Refused(text, hint=OTHER_USER)
    return Damaged(text, hint=f"Put a copy of {path.name} back, and leave what is beside it as it is.")


def is_full(directory: Path) -> bool:
    """Hardly a byte is free on the file system of a directory."""
    try:
        stats = os.statvfs(directory)
    except OSError:
        return False
    return stats.f_bavail * stats.f_frsize < _HARDLY_ANY
