"""Set-user-ID and set-group-ID bits that a change of the file takes away, where the kernel leaves that to us.

Linux clears them when somebody writes to a file, cuts it or gives it to another owner. Asked to do it ourselves
(`handshake.py`) we are told who cuts and opens, but pyfuse3 does not pass on who writes: any write clears them, also
root's, as POSIX allows.
"""

from __future__ import annotations

import stat
from typing import Final

BITS: Final = stat.S_ISUID | stat.S_ISGID


def cleared(mode: int) -> int:
    """The mode afterwards. Without execute permission for the group S_ISGID means something else and stays."""
    if stat.S_ISDIR(mode):
        return mode
    return mode & ~(BITS if mode & stat.S_IXGRP else stat.S_ISUID)
