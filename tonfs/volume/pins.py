"""Pinned files: local copies that are never given up. Said by `user.tonfs.policy.pin`, inherited by directory.

The nearest word counts: a directory below a pinned one may be unpinned again. A file with several names is pinned when
one of them is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..ids import Inode
from ..policy import PATH_POLICY_PREFIX
from .packs import Evicted
from .survey import Survey
from .words import Words

PIN: Final = f"{PATH_POLICY_PREFIX}pin".encode()
WHY: Final = "pinned"


class Pins(Survey):
    """Eviction that spares what is pinned."""

    def evict(self, inodes: Sequence[Inode]) -> Evicted:
        """See `Packs.evict`; pinned files are kept, and say why."""
        pinned = self.pinned_among(inodes)
        done = super().evict([inode for inode in inodes if inode not in pinned])
        if not pinned:
            return done
        return Evicted(done.files, done.bytes, done.bags, done.kept + tuple((inode, WHY) for inode in sorted(pinned)))

    def pinned_among(self, inodes: Sequence[Inode]) -> set[Inode]:
        """Those of these inodes that are pinned. Slow."""
        with self._fresh() as db:
            words = Words(db, PIN)
            return {inode for inode in inodes if b"true" in words.of(inode)}
