"""An object that was found, held so that it stays what it was, and its bytes.

Whoever reads an object holds its inode and reads exactly the version that he described: a PUT meanwhile gives the name
another inode; a write through the mount changes the version, and then the read is cut instead of mixing bytes.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from ..errors import FsError, S3Error, Stale, TonfsError
from ..log import get_logger
from ..volume.api import ROOT, Attr, Namespace, RemoteRange, StoredObject
from .door import Door
from .mapping import Key, bucket_visible, etag_of, find_bucket, no_key

log = get_logger(__name__)

SMALL: Final = 64 << 10
"""Up to here a read is not worth a thread."""
MAX_TRIES: Final = 8


class Found:
    """What a client is told of an object."""

    __slots__ = ("attr", "etag", "modified", "record", "size")

    def __init__(self, stored: StoredObject) -> None:
        attr, record = stored
        self.attr = attr
        self.record = record
        self.etag = etag_of(attr, record)
        self.modified = attr.mtime_ns / 10**9
        """UTC seconds."""
        self.size = 0 if attr.is_dir else attr.size


async def hold(door: Door, bucket: bytes, key: Key) -> Found:
    """The object as it is now, also what the kernel of a mount held back of it. Held: give it back with `drop`.

    Raises S3Error(NoSuchBucket, NoSuchKey).
    """
    namespace = door.namespace
    stored = None
    if bucket_visible(bucket):
        stored = namespace.find_object(ROOT, (bucket, *key.parts), marker=key.marker, hold=True)
    if stored is None:
        find_bucket(namespace, bucket)
        raise no_key()
    inode = stored.attr.inode
    if inode in namespace.kernel.writers:
        try:
            await door.slow(partial(namespace.kernel.pull, inode))
            stored = namespace.stored(inode)
        except BaseException:
            namespace.drop(inode)
            raise
    return Found(stored)


def find(namespace: Namespace, bucket: Attr, key: Key, *, pull: bool = False) -> Found | None:
    """The object as it is now, not held. `pull`: with what a kernel held back of it; slow then."""
    try:
        stored = namespace.find_object(bucket.inode, key.parts, marker=key.marker)
        if stored is not None and pull and stored.attr.inode in namespace.kernel.writers:
            namespace.kernel.pull(stored.attr.inode)
            stored = namespace.find_object(bucket.inode, key.parts, marker=key.marker)
    except FsError as exc:
        if exc.errno == errno.ENOENT:  # the bucket was removed meanwhile
            return None
        raise
    return None if stored is None else Found(stored)


async def read(door: Door, attr: Attr, offset: int, length: int, use: Callable[[bytes], object] | None = None) -> bytes:
    """Exactly `length` bytes of exactly this version; `use` gets them in the thread that read them.

    Raises Stale, S3Error(503) when they do not come in time.
    """
    namespace = door.namespace

    def once() -> tuple[bytes, Sequence[RemoteRange]]:
        result = namespace.read(attr.inode, offset, length)
        if result.version != attr.version or (not result.missing and len(result.data) != length):
            raise Stale("The object was changed while it was being read.")
        if not result.missing and use is not None:
            use(result.data)
        return result.data, result.missing

    for _ in range(MAX_TRIES):
        data, missing = once() if length <= SMALL else await door.slow(once)
        if not missing:
            return data
        try:
            await door.fetch(missing)
        except TonfsError as exc:
            log.info("an object's bytes could not be fetched", inode=int(attr.inode), reason=exc.message)
            raise S3Error(
                "ServiceUnavailable", 503, "The object's bytes could not be fetched from the network in time."
            ) from exc
    raise S3Error("ServiceUnavailable", 503, "The object's bytes do not stay on this machine long enough to be sent.")
