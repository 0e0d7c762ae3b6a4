"""Multipart uploads: parts outside every bucket, kept over restarts, made one object by reference.

A part is a staged inode (no name, nlink 0) that a row of `upload_part` keeps alive. Completing adopts the parts'
content into a new staged file, publishes it and forgets the parts in one transaction; the upload's row stays for a
while with the answer, so that a client that lost it may ask again.
"""

from __future__ import annotations

import errno
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ..errors import FsError, Stale
from ..ids import Inode
from .api import ROOT, Attr, Expect, ObjectPart, S3Record, Upload, UploadPart
from .core import locked
from .listings import Listings
from .objects import Changes, Wish

_UPLOAD: Final = "id, bucket, key, created, facts, done"
_PART: Final = "number, inode, size, etag, checksum, modified"


def _upload(row: tuple[Any, ...]) -> Upload:
    return Upload(
        row[0], Inode(row[1]), bytes(row[2]), row[3], json.loads(row[4]), json.loads(row[5]) if row[5] else None
    )


def _part(row: tuple[Any, ...]) -> UploadPart:
    return UploadPart(row[0], Inode(row[1]), *row[2:])


class Uploads(Listings):
    """Everything that takes an upload's id raises FsError(ENOENT) when there is none."""

    _parts_bytes: int | None = None
    """Of all parts; None until somebody asks."""

    @locked
    def begin_upload(self, bucket: Inode, key: bytes, facts: Mapping[str, Any]) -> Upload:
        self.space.require()
        self._live_dir(bucket)
        upload = Upload(secrets.token_hex(16), bucket, key, self.now_ns(), dict(facts), None)
        values = (upload.id, bucket, key, upload.created_ns, json.dumps(upload.facts), None)
        self._sql(f"INSERT INTO upload ({_UPLOAD}) VALUES (?, ?, ?, ?, ?, ?)", values)
        return upload

    @locked
    def open_uploads(self) -> int:
        (count,) = self.db.execute("SELECT count(*) FROM upload WHERE done IS NULL").fetchone()
        return int(count)

    @locked
    def parts_bytes(self) -> int:
        if self._parts_bytes is None:
            (total,) = self.db.execute("SELECT coalesce(sum(size), 0) FROM upload_part").fetchone()
            self._parts_bytes = int(total)
        return self._parts_bytes

    @locked
    def upload(self, upload_id: str) -> Upload:
        row = self.db.execute(f"SELECT {_UPLOAD} FROM upload WHERE id = ?", (upload_id,)).fetchone()
        if row is None:
            raise FsError("There is no such upload.", errno.ENOENT)
        return _upload(row)

    def _open_upload(self, upload_id: str) -> Upload:
        upload = self.upload(upload_id)
        if upload.done is not None:
            raise FsError("The upload is complete.", errno.ENOENT)
        return upload

    @locked
    def add_part(self, upload_id: str, number: int, staged: Inode, etag: str, checksum: str) -> UploadPart:
        self._open_upload(upload_id)
        node = self._node(staged)
        if node.nlink or not self._holds.get(staged):
            raise FsError(f"Inode {staged} is not staged.", errno.EINVAL)
        part = UploadPart(number, staged, node.size, etag, checksum, self.now_ns())
        with self._atomic():
            old, freed = self._part(upload_id, number)
            values = (upload_id, number, staged, part.size, etag, checksum, part.modified_ns)
            self._sql(f"INSERT OR REPLACE INTO upload_part (upload, {_PART}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            self._order(staged)
        self._count_parts(part.size - freed)
        if old is not None:
            self.drop(old)
        self._commit_if_large()
        return part

    def _part(self, upload_id: str, number: int) -> tuple[Inode | None, int]:
        """Inode and size; (None, 0) when there is no such part."""
        row = self.db.execute(
            "SELECT inode, size FROM upload_part WHERE upload = ? AND number = ?", (upload_id, number)
        ).fetchone()
        return (Inode(row[0]), row[1]) if row else (None, 0)

    def _count_parts(self, change: int) -> None:
        if self._parts_bytes is not None:
            self._parts_bytes += change

    @locked
    def upload_parts(self, upload_id: str, after: int = 0, limit: int = 10_000) -> list[UploadPart]:
        self._open_upload(upload_id)
        rows = self.db.execute(
            f"SELECT {_PART} FROM upload_part WHERE upload = ? AND number > ? ORDER BY number LIMIT ?",
            (upload_id, after, limit),
        )
        return [_part(row) for row in rows]

    @locked
    def list_uploads(
        self, bucket: Inode, after: tuple[bytes, str] = (b"", ""), limit: int = 1000, *, prefix: bytes = b""
    ) -> list[Upload]:
        values: list[Any] = [bucket, *after, prefix]
        upper = ""
        end = prefix.rstrip(b"\xff")
        if end:
            upper = "AND key < ? "
            values.append(end[:-1] + bytes([end[-1] + 1]))
        rows = self.db.execute(
            f"SELECT {_UPLOAD} FROM upload WHERE bucket = ? AND done IS NULL AND (key, id) > (?, ?) AND key >= ? "
            f"{upper}ORDER BY key, id LIMIT ?",
            (*values, limit),
        )
        return [_upload(row) for row in rows]

    @locked
    def abort_upload(self, upload_id: str) -> None:
        self._open_upload(upload_id)
        self._forget_upload(upload_id)

    def _forget_upload(self, upload_id: str) -> None:
        with self._atomic():
            gone = self._forget_parts(upload_id)
            self._sql("DELETE FROM upload WHERE id = ?", (upload_id,))
        self._drop_parts(gone)
        self._commit_if_large()

    def _forget_parts(self, upload_id: str) -> list[tuple[int, int]]:
        """(inode, size) of each, for `_drop_parts` once the caller is out of `_atomic`."""
        rows = self.db.execute("SELECT inode, size FROM upload_part WHERE upload = ?", (upload_id,)).fetchall()
        self._sql("DELETE FROM upload_part WHERE upload = ?", (upload_id,))
        return rows

    def _drop_parts(self, gone: Sequence[tuple[int, int]]) -> None:
        self._count_parts(-sum(size for _, size in gone))
        for inode, _ in gone:
            self.drop(Inode(inode))

    def complete_upload(
        self,
        upload_id: str,
        chosen: Sequence[UploadPart],
        parts: Sequence[bytes],
        record: S3Record,
        answer: Mapping[str, Any],
        *,
        expect: Expect | None = None,
        marker: bool = False,
    ) -> Attr:
        changes = Changes()
        attr = self._complete_upload(upload_id, chosen, Wish(parts, record, expect, marker), answer, changes)
        self._tell(changes.change())
        return attr

    @locked
    def _complete_upload(
        self,
        upload_id: str,
        chosen: Sequence[UploadPart],
        wish: Wish,
        answer: Mapping[str, Any],
        changes: Changes,
    ) -> Attr:
        upload = self._open_upload(upload_id)
        sources: list[ObjectPart] = []
        offset = 0
        for part in chosen:
            if self._part(upload_id, part.number)[0] != part.inode:
                raise Stale("A part was sent again meanwhile.")
            sources.append(ObjectPart(part.number, offset, part.size, part.checksum))
            offset += part.size
        staged = self._join([part.inode for part in chosen])
        try:
            with self._atomic():  # object, parts and answer change together, whenever the index is committed
                node = self._become(staged, upload.bucket, replace(wish, sources=sources), changes)
                gone = self._forget_parts(upload_id)
                self._sql("UPDATE upload SET done = ? WHERE id = ?", (json.dumps(dict(answer)), upload_id))
        finally:
            self.drop(staged)
        self._drop_parts(gone)
        self._commit_if_large()
        return self._attr(node)

    def _join(self, inodes: Sequence[Inode]) -> Inode:
        """A staged file with the content of all of these."""
        first = self._node(inodes[0])
        staged = self.stage(first.uid, first.gid)
        self.concat(staged, [(inode, 0, self._node(inode).size) for inode in inodes])
        return staged

    def delete_bucket(self, name: bytes) -> None:
        """Uploads that were begun in it go, too."""
        bucket = self.lookup(ROOT, name).inode
        super().delete_bucket(name)
        self._forget_uploads_of(bucket)

    @locked
    def _forget_uploads_of(self, bucket: Inode) -> None:
        for (upload_id,) in self.db.execute("SELECT id FROM upload WHERE bucket = ?", (bucket,)).fetchall():
            self._forget_upload(upload_id)

    @locked
    def expire_uploads(self, open_before_ns: int, done_before_ns: int) -> int:
        """Forget uploads begun before the first time, answers of those begun before the second, and what belongs to
        buckets that are gone. Number of uploads forgotten."""
        self._commit_locked()
        rows = self.db.execute(
            "SELECT id FROM upload WHERE created < CASE WHEN done IS NULL THEN ? ELSE ? END "
            "OR NOT EXISTS (SELECT 1 FROM inode WHERE inode = bucket) LIMIT 1000",
            (open_before_ns, done_before_ns),
        ).fetchall()
        for (upload_id,) in rows:
            self._forget_upload(upload_id)
        return len(rows)
