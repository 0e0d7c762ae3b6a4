"""Giving an object its name: conditions checked, parents made, durable. What PutObject, CopyObject, CompleteMultipart-
Upload and deletions share."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final, TypeVar

from ..errors import FsError, NoSpace, S3Error, Stale
from ..ids import Inode
from ..volume.api import Attr, Expect, S3Record
from .conditions import check_write, failed
from .door import Call
from .found import Found, find
from .mapping import Key, conflict
from .router import not_implemented

T = TypeVar("T")
MAX_TRIES: Final = 16

Check = Callable[[Found | None], None]
"""Looks at what is there now; raises S3Error when a condition does not hold."""


def write_check(call: Call) -> Check | None:
    """If-Match and If-None-Match of this request; None without them. Raises S3Error(NotImplemented)."""
    for name in ("if-modified-since", "if-unmodified-since"):
        if call.header(name) is not None:
            raise not_implemented(name)
    if call.header("if-match") is None and call.header("if-none-match") is None:
        return None
    return lambda found: check_write(call.header, None if found is None else found.etag)


def refusal(exc: FsError | NoSpace | Stale, key: Key | None = None) -> S3Error:
    """What a change that did not happen looks like to the client."""
    if isinstance(exc, Stale):
        return failed()
    if isinstance(exc, NoSpace):
        return conflict(FsError(exc.message, errno.ENOSPC))
    if exc.errno == errno.EEXIST:
        return failed()
    return conflict(exc, key)


def conditionally(call: Call, bucket: Attr, key: Key, check: Check | None, action: Callable[[Expect | None], T]) -> T:
    """Run `action` on the condition that what `check` approved is still there; look again when it is not.

    Raises S3Error. In a worker thread.
    """
    namespace = call.door.namespace
    for _ in range(MAX_TRIES):
        expect = None
        if check is not None:
            found = find(namespace, bucket, key, pull=True)
            check(found)
            expect = (
                Expect(absent=True) if found is None else Expect(inode=found.attr.inode, version=found.attr.version)
            )
            if found is not None and found.attr.is_dir and found.record is None:
                expect = None  # an empty directory counts as an object, but nothing stands for it
        try:
            return action(expect)
        except (FsError, Stale) as exc:
            moved = isinstance(exc, Stale) or exc.errno in (errno.EEXIST, errno.ENOENT)
            if expect is None or not moved or not _exists(call, bucket):
                raise refusal(exc, key) from exc
        except NoSpace as exc:
            raise refusal(exc) from exc
    raise S3Error("OperationAborted", 409, "The object is being changed too quickly.")


def _exists(call: Call, bucket: Attr) -> bool:
    try:
        return call.door.namespace.getattr(bucket.inode).nlink > 0
    except FsError:
        return False


def place(call: Call, bucket: Attr, key: Key, staged: Inode, record: S3Record, check: Check | None) -> Attr:
    """The staged file becomes the object; durable with the next commit. On an error it stays staged. Raises S3Error.
    Slow."""
    namespace = call.door.namespace
    namespace.sync(staged)
    return conditionally(
        call,
        bucket,
        key,
        check,
        lambda expect: namespace.publish(staged, bucket.inode, key.parts, record, expect=expect, marker=key.marker),
    )


def publish_marker(call: Call, bucket: Attr, key: Key, record: S3Record, check: Check | None) -> Attr:
    """An object `dir/` without bytes, durably. Raises S3Error. Slow."""
    door, namespace = call.door, call.door.namespace
    attr = conditionally(
        call,
        bucket,
        key,
        check,
        lambda expect: namespace.put_marker(bucket.inode, key.parts, record, door.uid, door.gid, expect=expect),
    )
    namespace.commit()
    return attr
