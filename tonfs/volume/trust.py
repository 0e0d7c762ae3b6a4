"""What the disk surely has: `inode.safe`, and files that were being written when the machine or the front died.

Content files reach the disk when somebody fsyncs them, when the kernel likes, and when the volume is closed. Each row
of a file in content files says how many of its bytes were on the disk (`safe`). So bytes that a crash may have taken
are told from bytes that were promised: a file whose content file is too short after a crash is cut, unless safe bytes
are missing; these are damage, an error for who reads them and a finding of `tonfs fsck`.

The number rides on rows that are written anyway: with the first fsync of a file on that fsync's own commit, later,
when the row is on its way beside the bytes, with the next batch; what is left gets it at the end. After a crash files
that are not safe to their end are looked at in the background, once, and are from then on.
"""

from __future__ import annotations

import threading
from typing import Final

from ..errors import FsError
from ..ids import Inode
from ..log import get_logger
from . import segments as seg
from .content import TOP
from .contents import Contents
from .node import Node
from .schema import ALL_SAFE, CONTENT, DIRTY, SEGMENTED, WINDOW_SIZE

log = get_logger(__name__)

FEW: Final = 64
"""Content files that are fsynced one by one; with more of them the file system below is asked to write everything."""
AT_ONCE: Final = 1000
"""Files that one call in the background looks at after a crash."""
_UNKNOWN: Final = (
    f"SELECT inode FROM inode WHERE flags & {DIRTY} AND flags & {CONTENT | SEGMENTED} AND safe < size "
    "AND version < ? AND inode > ? ORDER BY inode LIMIT ?"
)


class Trust(Contents):
    """See the module."""

    _marks: set[Inode]
    """Were fsynced, and the index does not know that they are safe."""
    _looked_at: int | None
    """After a crash: files up to this number were looked at; None: all were."""
    _syncing: threading.Thread | None
    """After a crash: writes what the front before left to the kernel. Commits must not wait for it."""

    def _open(self) -> None:
        super()._open()
        self._marks = set()
        self._syncing = None
        self._looked_at = None if self.clean_start else 0
        self._unmarked = not self.clean_start
        if not self.clean_start:
            self.content.unsure = {TOP, *self.content.shards()}

    def _on_disk(self, node: Node) -> bool:
        if not node.placed:
            return False
        blobs = (Inode(node.blob),) if node.flags & CONTENT else {s.blob for s in self._segments(node)}
        known = node.safe >= node.size or not self._suspect
        return all(blob not in self._unsynced and (known or blob in self._synced) for blob in blobs)

    def _mark_soon(self, node: Node) -> None:
        """An fsync has ended; `lock` is held."""
        if node.placed and node.safe < node.size:
            self._note_safe(node)
            self._marks.add(node.inode)

    def _mark_now(self, node: Node, need: int) -> int:
        """Its bytes are on the disk, change `need` still has to be made durable: with it goes that they are. The
        change to ask for instead."""
        with self.lock:
            if self._nodes.get(node.inode) is not node:  # removed, or out of memory and back meanwhile
                return need
            if self._durable >= need or not node.placed or node.safe >= node.size or not self._on_disk(node):
                return need
            self._gen += 1
            self._pending.nodes[node.inode] = node
            return self._gen

    @property
    def pending(self) -> bool:
        return bool(self._marks) or self._looked_at is not None or super().pending

    def _keep_trust(self) -> None:
        """In the background: of what has reached the disk the index learns with the batch that follows."""
        if self._suspect and self._syncing is None:
            self._syncing = threading.Thread(target=self._sync_beside, name="sync", daemon=True)
            self._syncing.start()
        elif self._looked_at is not None and not self._suspect:
            self._look_at_some()
        with self.lock:
            marks, self._marks = self._marks, set()
            for inode in marks:
                node = self._nodes.get(inode)
                if node is not None:
                    self._gen += 1
                    self._pending.nodes[inode] = node

    def _trust_all(self) -> None:
        """Everything is on the disk, and its rows say so with the next commit. Slow."""
        self._sync_everything()
        while self._looked_at is not None:
            self._look_at_some()
            with self.lock:
                self._marks.clear()
                self._shrink_cache()
        with self.lock:
            if self._unsynced:  # written meanwhile, or cut
                self._sync_everything()
            if self._unmarked:
                self._sql(ALL_SAFE)

    def _sync_everything(self) -> None:
        with self.lock:
            waiting, shards = dict(self._unsynced), dict(self.content.new_shards)
            suspect = self._suspect
            few = not suspect and len(waiting) <= FEW
            todo = self._take_unsynced(waiting) if few else [(blob, -1, last) for blob, last in waiting.items()]
        if few:
            self._sync_taken(todo, shards)
            return
        self.content.sync_everything()
        with self.lock:
            self.content.shards_synced(shards)
            self._note_synced(todo)
            if suspect:
                self._suspect = False
                self._synced.clear()
                self.content.unsure.clear()

    def _sync_beside(self) -> None:
        try:
            self._sync_everything()
        except OSError as exc:  # the end tries again, and says so
            log.warning("what was written before the crash cannot be synced", reason=str(exc))

    # After a crash ----------------------------------------------------------------------------------------------

    def _look_at_some(self) -> None:
        """Files that were being written: those that are whole are on the disk now and stay so, others are cut."""
        with self.reader_lock:
            rows = self.reader.execute(_UNKNOWN, (self._version_base, self._looked_at, AT_ONCE)).fetchall()
        with self.lock:
            for (inode,) in rows:
                try:
                    self._node(inode)
                except FsError:  # removed meanwhile
                    continue
                self._marks.add(inode)
        self._looked_at = rows[-1][0] if len(rows) == AT_ONCE else None

    def _distrust(self, node: Node) -> None:
        """A file with unpacked bytes, met for the first time since a crash: the disk may have more or less of them
        than the index knows.

        Its version jumps, so that no pack made of the earlier bytes is accepted and no S3 validator comes back; a size
        whose bytes never reached the disk (only a loss of power does that, and never after fsync) is cut. An S3 record
        that was current still is: bytes it vouches for are never overwritten before the index says so (rule 1).
        """
        version, size = node.version, node.size
        node.version = self._version_base
        if node.placed:
            node.blocks = -1
            self._cut_what_is_missing(node)
        row = self._record_row(node)
        if row is not None and row[1] == version and node.size == size:
            node.record, node.record_changed = (row[0], node.version, *row[2:]), True
        if node.size != size or node.record_changed:
            self._touch(node, times=False)

    def _cut_what_is_missing(self, node: Node) -> None:
        if node.flags & CONTENT:
            there = self._blob_length(Inode(node.blob))
            want = min(node.size, WINDOW_SIZE)
        else:
            there = want = node.size
            for segment in self._segments(node):
                missing = segment.blob_offset + segment.length - self._blob_length(segment.blob)
                if missing > 0:
                    there = min(there, segment.end - min(missing, segment.length))
        if there >= want or there < node.safe:
            return
        # Bytes behind that exist nowhere, unless an extent has them.
        (covered,) = self.db.execute(
            "SELECT coalesce(max(offset + length), 0) FROM extent WHERE inode = ?", (node.inode,)
        ).fetchone()
        size = max(there, covered)
        log.warning(
            "a file is shorter after the crash: its last bytes were never fsynced",
            inode=node.inode, was=node.size, now=size, cut=node.size - size,
        )  # fmt: skip
        if node.flags & CONTENT:
            self._note_written(Inode(node.blob))
            self.content.make_at_least(Inode(node.blob), size)
        else:
            self._set_segments(node, seg.without(self._segments(node), there, node.size))
        node.size = size
        if size == 0:
            node.set(DIRTY, False)
        self._touch(node, times=False)
