"""GetObject and HeadObject: conditions, ranges, bytes that may have to come from the network first.

A GET holds the inode it found and sends exactly that version: a PUT meanwhile gives the name another inode; a write
through the mount changes the version, and then the answer is cut instead of mixing old and new bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..errors import FsError, S3Error, Stale, TonfsError
from ..ids import Inode
from ..log import get_logger
from ..volume.api import Attr, S3Record
from .conditions import http_date, not_modified, parse_range, range_applies
from .door import Answer, Call, Door, Headers
from .mapping import Key, content_type_of, etag_of, find_bucket, find_object, no_key, parse_key
from .metadata import response_headers
from .router import OVERRIDES

log = get_logger(__name__)

SEND_BLOCK: Final = 1 << 20
SMALL: Final = 64 << 10
"""Up to here a read is not worth a thread."""
MAX_TRIES: Final = 8


@dataclass(frozen=True)
class _Found:
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


def _hold(call: Call, key: Key) -> _Found:
    """The object, held: give it back with `drop`. Raises S3Error(NoSuchBucket, NoSuchKey)."""
    namespace = call.door.namespace
    bucket = find_bucket(namespace, call.bucket)
    for _ in range(MAX_TRIES):
        found = find_object(namespace, bucket, key)
        if found is None:
            raise no_key()
        try:
            namespace.hold(found.inode)
        except FsError:
            continue  # replaced between the two calls
        try:
            return _describe(call.door, found.inode)
        except BaseException:
            namespace.drop(found.inode)
            raise
    raise S3Error("SlowDown", 503, "The object is being replaced too quickly.")


def _describe(door: Door, inode: Inode) -> _Found:
    """Attributes and record that belong together."""
    for _ in range(MAX_TRIES):
        before = door.namespace.getattr(inode)
        record = door.namespace.record(inode)
        if door.namespace.getattr(inode).version == before.version:
            return _Found(before, record)
    raise S3Error("SlowDown", 503, "The object is being written too quickly.")


def _headers(call: Call, found: _Found, key: Key, whole: bool) -> Headers:
    wants_checksum = (call.header("x-amz-checksum-mode") or "").upper() == "ENABLED"
    headers: Headers = [
        ("ETag", f'"{found.etag}"'),
        ("Last-Modified", http_date(found.modified)),
        ("Accept-Ranges", "bytes"),
        ("Content-Type", content_type_of(key.parts[-1], found.attr, found.record)),
    ]
    headers += response_headers(found.record, checksums=whole and wants_checksum)
    return _overridden(call, headers)


def _overridden(call: Call, headers: Headers) -> Headers:
    for word, name in OVERRIDES.items():
        value = call.parameter(word)
        if value is None:
            continue
        if not value.isprintable() or not value.isascii():
            raise S3Error("InvalidArgument", 400, f"The value of {word} cannot be a header.")
        headers = [(key, old) for key, old in headers if key != name]
        headers.append((name, value))
    return headers


async def get_object(call: Call) -> Answer:
    return await _answer(call, with_body=True)


async def head_object(call: Call) -> Answer:
    return await _answer(call, with_body=False)


async def _answer(call: Call, *, with_body: bool) -> Answer:
    key = parse_key(call.key)
    for _ in range(MAX_TRIES):
        found = _hold(call, key)
        answer = None
        try:
            answer = await _describe_and_open(call, key, found, with_body)
            return answer
        except Stale:
            continue  # written through the mount since we looked, nothing is sent yet: look again
        finally:
            if answer is None or answer.stream is None:
                call.door.namespace.drop(found.attr.inode)
    raise S3Error("SlowDown", 503, "The object is being written too quickly.")


async def _describe_and_open(call: Call, key: Key, found: _Found, with_body: bool) -> Answer:
    """Raises Stale when the object is not the described one any more."""
    if not_modified(call.header, found.etag, found.modified):
        return Answer(304, [("ETag", f'"{found.etag}"'), ("Last-Modified", http_date(found.modified))])
    part = None
    if range_applies(call.header, found.etag, found.modified):
        part = parse_range(call.header("range"), found.size)
    first, end = part if part is not None else (0, found.size)
    headers = _headers(call, found, key, whole=part is None)
    if part is not None:
        headers.append(("Content-Range", f"bytes {first}-{end - 1}/{found.size}"))
    status = 206 if part is not None else 200
    if not with_body or first == end:
        return Answer(status, headers, length=end - first)
    # The first block is read before anything is sent, so that a failure still gets a proper answer.
    block = await _read(call.door, found.attr, first, min(end - first, SEND_BLOCK))
    return Answer(status, headers, stream=ObjectStream(call.door, found.attr, block, first, end), length=end - first)


class ObjectStream:
    """The bytes of one version of one object, in blocks. `close` gives back the hold on its inode."""

    def __init__(self, door: Door, attr: Attr, block: bytes, first: int, end: int) -> None:
        self._door = door
        self._attr = attr
        self._block = block
        self._position = first
        self._end = end
        self._closed = False

    async def next(self) -> bytes:
        """The next block, b"" at the end. Raises Stale when the object was changed, S3Error when bytes are away."""
        block, self._block = self._block, b""
        if not block and self._position < self._end:
            length = min(self._end - self._position, SEND_BLOCK)
            block = await _read(self._door, self._attr, self._position, length)
        self._position += len(block)
        return block

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._door.namespace.drop(self._attr.inode)


async def _read(door: Door, attr: Attr, offset: int, length: int) -> bytes:
    """Exactly `length` bytes of exactly this version. Raises Stale, S3Error(503) when they do not come in time."""
    namespace = door.namespace
    for _ in range(MAX_TRIES):
        if length <= SMALL:
            result = namespace.read(attr.inode, offset, length)
        else:
            result = await door.slow(lambda: namespace.read(attr.inode, offset, length))
        if result.version != attr.version or (not result.missing and len(result.data) != length):
            raise Stale("The object was changed while it was being read.")
        if not result.missing:
            return result.data
        try:
            await door.fetch(result.missing)
        except TonfsError as exc:
            log.info("an object's bytes could not be fetched", inode=int(attr.inode), reason=exc.message)
            raise S3Error(
                "ServiceUnavailable", 503, "The object's bytes could not be fetched from the network in time."
            ) from exc
    raise S3Error("ServiceUnavailable", 503, "The object's bytes do not stay on this machine long enough to be sent.")
