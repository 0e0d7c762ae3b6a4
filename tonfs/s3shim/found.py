"""An object that was found, held so that it stays what it was, and its bytes.

Whoever reads an object holds its inode and reads exactly the version that he described: a PUT meanwhile gives the name
another inode; a write through the mount changes the version, and then the read is cut instead of mixing bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from ..errors import FsError, S3Error, Stale, TonfsError
from ..ids import Inode
from ..log import get_logger
from ..volume.api import Attr, Namespace, RemoteRange, S3Record
from .door import Door
from .mapping import Key, etag_of, find_bucket, find_object, no_key

log = get_logger(__name__)

SMALL: Final = 64 << 10
"""Up to here a read is not worth a thread."""
MAX_TRIES: Final = 8


class Found(NamedTuple):
    attr: Attr
    record: S3Record | None

    @property
    def etag(self) -> str:
        return etag_of(self.attr, self.record)

    @property
    def modified(self) -> float:
        return self.attr.mtime_ns / 10**9

    @property
    def size(self) -> int:
        return 0 if self.attr.is_dir else self.attr.size


async def hold(door: Door, bucket: bytes, key: Key) -> Found:
    """The object as it is now, also what the kernel of a mount held back of it. Held: give it back with `drop`.

    Raises S3Error(NoSuchBucket, NoSuchKey).
    """
    namespace = door.namespace
    place = find_bucket(namespace, bucket)
    for _ in range(MAX_TRIES):
        attr = find_object(namespace, place, key)
        if attr is None:
            raise no_key()
        try:
            namespace.hold(attr.inode)
        except FsError:
            continue  # replaced between the two calls
        try:
            if attr.inode in namespace.kernel.writers:
                await door.slow(partial(namespace.kernel.pull, attr.inode))
            return describe(namespace, attr.inode)
        except FsError:
            namespace.drop(attr.inode)
        except BaseException:
            namespace.drop(attr.inode)
            raise
    raise S3Error("SlowDown", 503, "The object is being replaced too quickly.")


def describe(namespace: Namespace, inode: Inode) -> Found:
    """Attributes and record that belong together. Raises FsError(ENOENT) when it is gone."""
    for _ in range(MAX_TRIES):
        before = namespace.getattr(inode)
        record = namespace.record(inode)
        if namespace.getattr(inode).version == before.version:
            return Found(before, record)
    raise S3Error("SlowDown", 503, "The object is being written too quickly.")


def find(namespace: Namespace, bucket: Attr, key: Key, *, pull: bool = False) -> Found | None:
    """The object as it is now, not held. `pull`: with what a kernel held back of it; slow then."""
    for _ in range(MAX_TRIES):
        attr = find_object(namespace, bucket, key)
        if attr is None:
            return None
        try:
            if pull and attr.inode in namespace.kernel.writers:
                namespace.kernel.pull(attr.inode)
            return describe(namespace, attr.inode)
        except FsError:
            continue
    raise S3Error("SlowDown", 503, "The object is being replaced too quickly.")


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
