"""A full disk must never cost the index a commit: a little room is kept back for it.

`ballast` is an allocated file in the volume. When the disk runs full, changes that need room are refused first
(ENOSPC), then the ballast is given up so that what was already accepted can be committed. A quota of the file system
below (EDQUOT) shows in no figure; it is met by a write, and over when the ballast can be made again.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from ..errors import FsError
from ..system import FULL

_MIB: Final = 1 << 20


def no_space(number: int = errno.ENOSPC) -> FsError:
    what = "The disk below the volume is full." if number == errno.ENOSPC else "The quota below the volume is used up."
    return FsError(what, number, hint="Free some space there, or evict local copies.")


class SpaceGuard:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ballast = directory / "ballast"
        total = self._statvfs().f_blocks * self._statvfs().f_frsize
        self.size = max(_MIB, min(8 * _MIB, total // 64))
        """Of the ballast; new data is refused when less than half of it is free besides."""
        self.low = False
        self.number: int = errno.ENOSPC
        """What the disk said when it took no more."""
        self.look()

    def _statvfs(self) -> os.statvfs_result:
        return os.statvfs(self._directory)

    @property
    def free(self) -> int:
        stats = self._statvfs()
        return stats.f_bavail * stats.f_frsize

    def look(self) -> None:
        """Measure; make the ballast again when there is room. Without ballast nothing new is taken."""
        free = self.free
        if not self._ballast.exists() and free > 2 * self.size:
            self._make()
            free = self.free
        self.low = free < self.size // 2 or not self._ballast.exists()

    def _make(self) -> None:
        try:
            fd = os.open(self._ballast, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, self.size)
            finally:
                os.close(fd)
        except OSError as exc:
            self._ballast.unlink(missing_ok=True)
            self.number = exc.errno if exc.errno in FULL else errno.ENOSPC

    def require(self) -> None:
        """Raises FsError(ENOSPC, EDQUOT) when what is left belongs to the index."""
        if self.low:
            self.look()
            if self.low:
                raise no_space(self.number)

    def exhausted(self, number: int = errno.ENOSPC) -> None:
        """A write met the end of the disk: refuse more, and free the ballast for the commit."""
        self.low, self.number = True, number
        self._ballast.unlink(missing_ok=True)

    def made_room(self) -> bool:
        """A commit was not taken, for a reason that SQLite does not tell. If there is no room for more: the ballast is
        free now."""
        probe = self._directory / "probe"
        try:
            fd = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, self.size)
            finally:
                os.close(fd)
        except OSError as exc:
            if exc.errno not in FULL or not self._ballast.exists():
                return False
            self.exhausted(exc.errno)
            return True
        finally:
            probe.unlink(missing_ok=True)
        return False

    def before_commit(self) -> None:
        """The commit that comes now must find room."""
        if self.low:
            self.exhausted(self.number)
        elif self.free < self.size // 2:
            self.exhausted()
