"""The half of `Namespace` that S3 needs beyond files and names: objects, their records, multipart uploads.

What holds for every method is said in `api.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..ids import Inode
from .values import Attr, Expect, ObjectPart, S3Record, StoredObject, Upload, UploadPart


class Objects(Protocol):
    """See the module."""

    def create_bucket(self, name: bytes, uid: int, gid: int) -> Attr:
        """A top-level directory (0755). Raises FsError(EEXIST)."""
        ...

    def delete_bucket(self, name: bytes) -> None:
        """Raises FsError(ENOENT, ENOTEMPTY, ENOTDIR)."""
        ...

    def stage(self, uid: int, gid: int, mode: int = 0o644) -> Inode:
        """A new regular file without a name, held once. Fill it with `write` or `pour`, then `publish` or `discard` it.

        After a crash unpublished ones vanish.
        """
        ...

    def pour(self, staged: Inode, data: bytes | memoryview) -> None:
        """Append to a staged file, one caller at a time. As `write`, but large data does not keep others waiting, and
        the disk begins with it at once, so that `sync` is short. Slow. Raises FsError(EFBIG, ENOSPC, EIO, ...)."""
        ...

    def publish(
        self,
        staged: Inode,
        bucket: Inode,
        parts: Sequence[bytes],
        record: S3Record,
        *,
        expect: Expect | None = None,
        marker: bool = False,
        sources: Sequence[ObjectPart] = (),
    ) -> Attr:
        """Give a staged file its name `bucket/parts[0]/…/parts[-1]` and record, replacing the object there.

        One transaction: missing parent directories are made (and remembered as implied), the old file loses the
        name (who holds it reads on), owner and mode of a replaced file are kept. Where a directory has the name
        already, it carries the object, and POSIX does not show it; with `marker` the object is `parts[-1]/`, which a
        directory always carries. An object on the way that S3 wrote becomes one that a directory carries; a file that
        only the mount wrote does not. Carried objects move and go with their directory.

        Raises FsError: ENOTDIR (a file on the way), ELOOP (a symlink there), ENAMETOOLONG. The hold of `stage` is
        given back; on an error the file stays staged. Durable after `commit()`; call `sync(staged)` before (in a
        thread) to keep the commit short. `sources`: the parts that it was uploaded in.
        """
        ...

    def concat(self, staged: Inode, parts: Sequence[tuple[Inode, int, int]]) -> Attr:
        """Append ranges (inode, offset, length) of other regular files to a staged one, by reference: no bytes are
        copied (but those of files of a few KiB). The sources stay as they are and may be changed, discarded or removed
        afterwards; what was shared stays. Slow for thousands of parts.

        What is shared is never changed in place: a later write to any of the files goes to a new place. Bytes that are
        only in packs are shared, too. Durable with the commit that names the staged file; nothing is appended on an
        error. Raises FsError: EINVAL (not staged, or a range outside its file), EISDIR, ENOENT, EFBIG, ENOSPC.
        """
        ...

    def discard(self, staged: Inode) -> None:
        """Forget a staged file. Never raises."""
        ...

    def put_marker(
        self,
        bucket: Inode,
        parts: Sequence[bytes],
        record: S3Record,
        uid: int,
        gid: int,
        *,
        expect: Expect | None = None,
    ) -> Attr:
        """The object `a/b/` without bytes: makes the directory when missing and gives it a record. Data that `a/b/` had
        is gone."""
        ...

    def remove_object(
        self, bucket: Inode, parts: Sequence[bytes], *, marker: bool = False, expect: Expect | None = None
    ) -> bool:
        """Unlink the object (or with `marker` the object `name/`, and its directory when that is empty), then prune
        empty implied parents, in one transaction. A pruned directory leaves its name to the object that it carried.
        False when nothing was there."""
        ...

    def find_object(
        self, start: Inode, parts: Sequence[bytes], *, marker: bool = False, hold: bool = False
    ) -> StoredObject | None:
        """The object of a path below `start`, with `marker` of the path and a slash; None when it names none, also when
        a file is on the way. A directory is the object `dir/` when a key made it so, or when it is empty (nothing else
        would show it). With `hold` its inode is held. Raises FsError(ENOENT) when `start` is gone."""
        ...

    def stored(self, inode: Inode) -> StoredObject:
        """What an inode carries, both as they are at one moment. Raises FsError(ENOENT)."""
        ...

    def object_parts(self, inode: Inode, after: int = 0, limit: int = 10_000) -> list[ObjectPart]:
        """The parts that an object was uploaded in, by number; none once its bytes were changed."""
        ...

    def record(self, inode: Inode) -> S3Record | None: ...

    def set_record(self, inode: Inode, record: S3Record) -> None:
        """Replace the record of a file or directory; its digests are bound to the present version."""
        ...

    def set_tags(self, inode: Inode, tags: Mapping[str, str]) -> None:
        """Replace the tags of a file or directory, also of one that has no record yet; digests stay as they are."""
        ...

    # Multipart uploads. An id that is unknown, or of an upload that is complete, is FsError(ENOENT).

    def begin_upload(self, bucket: Inode, key: bytes, facts: Mapping[str, Any]) -> Upload: ...

    def open_uploads(self) -> int:
        """How many there are."""
        ...

    def parts_bytes(self) -> int:
        """Of all parts of all open uploads, on this disk."""
        ...

    def upload(self, upload_id: str) -> Upload:
        """Also one that is complete, for as long as its answer is kept."""
        ...

    def add_part(self, upload_id: str, number: int, staged: Inode, etag: str, checksum: str) -> UploadPart:
        """The staged file (see `stage`) becomes a part, in the place of an earlier one of the number. It survives
        a restart; durable after `commit()`. On an error it stays staged."""
        ...

    def upload_parts(self, upload_id: str, after: int = 0, limit: int = 10_000) -> list[UploadPart]:
        """By number."""
        ...

    def list_uploads(
        self, bucket: Inode, after: tuple[bytes, str] = (b"", ""), limit: int = 1000, *, prefix: bytes = b""
    ) -> list[Upload]:
        """Open ones above (key, id), in this order."""
        ...

    def abort_upload(self, upload_id: str) -> None: ...

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
        """Publish the content of these parts, one behind the other, without copying it, and forget the parts; the
        upload keeps `answer`. As `publish`; raises Stale when a part was replaced meanwhile."""
        ...

    def expire_uploads(self, open_before_ns: int, done_before_ns: int) -> int:
        """Forget uploads begun before the first time, complete ones begun before the second, and those of buckets
        that are gone; some at a time. Returns how many."""
        ...
