"""The body of a request on its way in: decoded, measured, and checked against everything that was promised."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from ..errors import S3Error
from . import checksums
from .chunked import ChunkDecoder
from .door import MAX_OBJECT, Call
from .mapping import too_large
from .sigv4 import PayloadKind

SMALL: Final = 16 << 10
"""Bytes of a body that are hashed and stored without a thread."""
_HELD: Final = 2047
"""hashlib lets other threads run while it hashes more, and then has to wait for its turn again: on a busy door longer
than it takes to hash SMALL bytes."""
_DIGITS: Final = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Digests:
    """`checksums`: algorithm -> base64, what the client sent and we found true."""

    md5: str
    checksums: dict[str, str]
    extra: dict[str, str] = field(default_factory=dict)
    """What nobody promised and was asked for with `also`."""


class Intake:
    """Reads one body. Make it before reading anything: it refuses promises that cannot be kept.

    Large ones: `fill` buffers until nothing comes, give each to `absorb` (also from a thread), then `finish` and
    `verify`. Small ones: `async for block in intake.blocks()` instead of `fill` and `finish`.
    """

    def __init__(
        self,
        call: Call,
        *,
        limit: int = MAX_OBJECT,
        needs_length: bool = False,
        also: str | None = None,
        foreign: bool = False,
    ) -> None:
        """Raises S3Error. `limit`: most bytes of data. `needs_length`: a body of unknown length gets 411. `also`: an
        algorithm whose checksum is wanted whatever the client promised. `foreign`: the header x-amz-checksum-* is
        about something else than this body."""
        self._call = call
        self._kind = call.identity.payload
        if not self._kind.signed and not call.door.allow_unsigned:
            raise S3Error("InvalidRequest", 400, "A body that is not signed is taken over TLS or loopback only.")
        self.length = self._data_length(needs_length)
        self._limit = limit
        if self.length is not None and self.length > limit:
            raise too_large()
        headers = call.request.headers
        md5 = call.header("content-md5")
        self._md5_wanted = checksums.parse_md5(md5) if md5 is not None else None
        declared = None if foreign else checksums.declared(headers)
        self._trailer_names = self._announced()
        trailer = checksums.announced_algorithm(self._trailer_names)
        if declared is not None and trailer is not None:
            raise S3Error("InvalidRequest", 400, "Expecting a single x-amz-checksum- header.")
        self._algorithm = declared[0] if declared is not None else trailer
        self._checksum_wanted = declared[1] if declared is not None else None
        wish = call.header("x-amz-sdk-checksum-algorithm")
        if wish is not None and not foreign and checksums.known(wish) != self._algorithm:
            raise S3Error("InvalidRequest", 400, "x-amz-sdk-checksum-algorithm is given without its checksum.")
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256() if self._kind is PayloadKind.EXACT else None
        self._checksum = checksums.new(self._algorithm) if self._algorithm is not None else None
        self._also = checksums.new(also) if also is not None and also != self._algorithm else None
        self._also_name = also
        self._decoder = (
            ChunkDecoder(call.identity, self.length, self._trailer_names)
            if self._kind.chunked and self.length is not None
            else None
        )
        self._decoded: deque[memoryview] = deque()
        self._ended = False
        self._count = 0
        self._trailers: dict[str, str] = {}

    def _announced(self) -> frozenset[str]:
        text = self._call.header("x-amz-trailer")
        if text is None:
            return frozenset()
        if not self._kind.chunked:
            raise S3Error("InvalidRequest", 400, "x-amz-trailer is only for aws-chunked bodies.")
        names = [name.strip().lower() for name in text.split(",")]
        if len(set(names)) != len(names):
            raise S3Error("InvalidRequest", 400, "x-amz-trailer names a trailer twice.")
        return frozenset(names)

    def _data_length(self, needs_length: bool) -> int | None:
        """None: plain data in HTTP's own chunks, which end where they end."""
        decoded = self._call.header("x-amz-decoded-content-length")
        if self._kind.chunked:
            if decoded is None:
                raise S3Error("MissingContentLength", 411, "You must provide x-amz-decoded-content-length.")
            if not _DIGITS.fullmatch(decoded):
                raise S3Error("InvalidArgument", 400, "x-amz-decoded-content-length is not a number.")
            return int(decoded)
        if decoded is not None:
            raise S3Error("InvalidRequest", 400, "x-amz-decoded-content-length is only for aws-chunked bodies.")
        body = self._call.body
        if body.length is None and body.chunked:
            return None
        if body.length is None and needs_length:
            raise S3Error("MissingContentLength", 411, "You must provide the Content-Length HTTP header.")
        return body.length or 0

    async def fill(self, buffer: memoryview) -> int:
        """The next data into the buffer; fewer bytes than fit only at the end. Raises S3Error."""
        if self._decoder is None:
            return await self._call.body.fill(buffer)
        done = 0
        while done < len(buffer) and (self._decoded or await self._decode()):
            piece = self._decoded.popleft()
            count = min(len(piece), len(buffer) - done)
            buffer[done : done + count] = piece[:count]
            done += count
            if count < len(piece):
                self._decoded.appendleft(piece[count:])
        return done

    async def _decode(self) -> bool:
        """Read until the decoder gives data; False when the body has ended."""
        assert self._decoder is not None
        while not self._ended and not self._decoded:
            raw = await self._call.body.read()
            if raw:
                self._decoded += map(memoryview, self._decoder.feed(raw))
            else:
                self._ended = True
                self._trailers = self._decoder.finish()
        return bool(self._decoded)

    async def finish(self) -> None:
        """All data has come: read what follows it. Raises S3Error."""
        if self._decoder is not None:
            await self._decode()

    async def blocks(self) -> AsyncIterator[bytes]:
        """The data in the pieces that it comes in. Raises S3Error."""
        while True:
            if self._decoder is None:
                piece = await self._call.body.read()
            else:
                piece = bytes(self._decoded.popleft()) if self._decoded or await self._decode() else b""
            if not piece:
                return
            yield piece

    def absorb(self, block: bytes | memoryview) -> None:
        """Account for a block: fine for a loop up to SMALL, else slow."""
        step = _HELD if len(block) <= SMALL else len(block)
        for start in range(0, len(block), step):
            piece = block[start : start + step]
            self.absorb_md5(piece)
            self.absorb_rest(piece)

    def absorb_md5(self, block: bytes | memoryview) -> None:
        """One half of `absorb`; the two may run at the same time."""
        self._md5.update(block)

    def absorb_rest(self, block: bytes | memoryview) -> None:
        """The other half. Raises S3Error when there is more than may be."""
        self._count += len(block)
        if self._count > self._limit:
            raise too_large()
        if self._sha256 is not None:
            self._sha256.update(block)
        if self._checksum is not None:
            self._checksum.update(block)
        if self._also is not None:
            self._also.update(block)

    def verify(self) -> Digests:
        """After the last block. Raises S3Error when anything is not as promised."""
        if self.length is not None and self._count != self.length:
            raise S3Error("IncompleteBody", 400, "You did not provide the number of bytes that you announced.")
        if self._sha256 is not None and not checksums.same(self._sha256.hexdigest(), self._call.identity.sha256):
            raise S3Error(
                "XAmzContentSHA256Mismatch", 400, "The provided 'x-amz-content-sha256' header does not match the body."
            )
        if self._md5_wanted is not None and not hmac.compare_digest(self._md5_wanted, self._md5.digest()):
            raise S3Error("BadDigest", 400, "The Content-MD5 you specified did not match what we received.")
        found: dict[str, str] = {}
        if self._algorithm is not None and self._checksum is not None:
            wanted = self._checksum_wanted
            if wanted is None:
                wanted = checksums.parse_checksum(
                    self._algorithm, self._trailers.get(checksums.PREFIX + self._algorithm, "")
                )
            found[self._algorithm] = checksums.b64(self._checksum.digest())
            if not checksums.same(wanted, found[self._algorithm]):
                raise checksums.wrong_checksum(self._algorithm)
        extra = {} if self._also is None or self._also_name is None else {self._also_name: self._also}
        return Digests(
            self._md5.hexdigest(), found, {name: checksums.b64(digest.digest()) for name, digest in extra.items()}
        )


async def read_whole(call: Call, limit: int, *, foreign: bool = False) -> bytes:
    """A small body, checked. Raises S3Error."""
    intake = Intake(call, limit=limit, foreign=foreign)
    parts = []
    async for block in intake.blocks():
        intake.absorb(block)
        parts.append(block)
        if sum(map(len, parts)) > limit:
            raise too_large()
    intake.verify()
    return b"".join(parts)
