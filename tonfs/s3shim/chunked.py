"""The `aws-chunked` body encoding: framing, chunk signatures, trailers. Pure: bytes in, data out.

    <hex size>[;chunk-signature=<64 hex>]CRLF <data> CRLF ... 0[;chunk-signature=...]CRLF [trailers] CRLF

The HTTP layer has already removed `Transfer-Encoding: chunked`; the two kinds of chunks need not be aligned. Data is
handed out as it comes, before its signature is known to be good: nothing may become visible before `finish`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

from ..errors import S3Error
from .sigv4 import EMPTY_SHA256, Identity, PayloadKind, sign

MAX_LINE: Final = 256
MAX_TRAILER: Final = 8192
MAX_CHUNK: Final = 1 << 34

_PLAIN: Final = re.compile(rb"([0-9a-fA-F]{1,16})")
_SIGNED: Final = re.compile(rb"([0-9a-fA-F]{1,16});chunk-signature=([0-9a-f]{64})")
_TRAILER: Final = re.compile(rb"([A-Za-z0-9-]{1,128}):[ \t]*([\x21-\x7e]{1,1024})[ \t]*")
_TRAILER_SIGNATURE: Final = "x-amz-trailer-signature"


def _broken(detail: str) -> S3Error:
    return S3Error("IncompleteBody", 400, f"The aws-chunked body is not correct: {detail}.")


class _Signatures:
    """Each chunk's signature covers its data and the signature before it."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._previous = identity.signature

    def check(self, kind: str, middle: tuple[str, ...], digest: str, signature: bytes) -> None:
        identity = self._identity
        text = "\n".join((f"AWS4-HMAC-SHA256-{kind}", identity.date, identity.scope, self._previous, *middle, digest))
        expected = sign(identity.signing_key, text)
        if not hmac.compare_digest(expected.encode(), signature):
            raise S3Error("SignatureDoesNotMatch", 403, "The signature of a chunk of the body does not match.")
        self._previous = expected


class ChunkDecoder:
    """Feed it the body; it gives back the data. `finish` when the body has ended."""

    def __init__(self, identity: Identity, decoded_length: int, announced: frozenset[str] = frozenset()) -> None:
        """`announced`: lower-case names from `x-amz-trailer`; exactly these must come."""
        kind = identity.payload
        self._signatures = _Signatures(identity) if kind is not PayloadKind.UNSIGNED_CHUNKS_TRAILER else None
        self._trailers_allowed = kind is not PayloadKind.SIGNED_CHUNKS
        if announced and not self._trailers_allowed:
            raise S3Error("InvalidRequest", 400, "Trailers are announced, but this kind of body has none.")
        self._announced = announced
        self._expected = decoded_length
        self._received = 0
        self._buffer = bytearray()
        self._left = 0
        self._hash = hashlib.sha256()
        self._chunk_signature = b""
        self._state = "line"

    def feed(self, data: bytes) -> list[bytes]:
        """Data that these bytes complete. Raises S3Error at the first thing that is wrong."""
        out: list[bytes] = []
        self._buffer += data
        while self._step(out):
            pass
        return out

    def _step(self, out: list[bytes]) -> bool:
        if self._state == "line":
            return self._line()
        if self._state == "data":
            return self._data(out)
        if self._state == "end":
            if len(self._buffer) < 2:
                return False
            if self._buffer[:2] != b"\r\n":
                raise _broken("a chunk does not end where its size says")
            del self._buffer[:2]
            self._state = "line"
            return True
        if len(self._buffer) > MAX_TRAILER:
            raise _broken("the trailers are too long")
        return False

    def _line(self) -> bool:
        end = self._buffer.find(b"\r\n", 0, MAX_LINE)
        if end < 0:
            if len(self._buffer) >= MAX_LINE:
                raise _broken("a chunk's first line is too long")
            return False
        match = (_PLAIN if self._signatures is None else _SIGNED).fullmatch(bytes(self._buffer[:end]))
        if match is None:
            raise _broken("a chunk's first line is not a size" + ("" if self._signatures is None else " and signature"))
        del self._buffer[: end + 2]
        size = int(match[1], 16)
        if size > MAX_CHUNK or self._received + size > self._expected:
            raise _broken("there is more data than x-amz-decoded-content-length says")
        self._chunk_signature = match[2] if self._signatures is not None else b""
        self._left = size
        self._hash = hashlib.sha256()
        if size:
            self._state = "data"
        else:
            self._check_chunk()
            self._state = "trailer"
        return True

    def _data(self, out: list[bytes]) -> bool:
        if not self._buffer:
            return False
        with memoryview(self._buffer) as view:
            piece = bytes(view[: self._left])
        del self._buffer[: len(piece)]
        self._left -= len(piece)
        self._received += len(piece)
        if self._signatures is not None:
            self._hash.update(piece)
        out.append(piece)
        if not self._left:
            self._check_chunk()
            self._state = "end"
        return True

    def _check_chunk(self) -> None:
        if self._signatures is not None:
            self._signatures.check("PAYLOAD", (EMPTY_SHA256,), self._hash.hexdigest(), self._chunk_signature)

    def finish(self) -> dict[str, str]:
        """The body has ended: trailers by lower-case name. Raises S3Error when anything is missing or wrong."""
        if self._state != "trailer":
            raise _broken("it ends too early")
        if self._received != self._expected:
            raise _broken("there is less data than x-amz-decoded-content-length says")
        tail = bytes(self._buffer)
        if not self._trailers_allowed:
            if tail not in (b"\r\n", b""):
                raise _broken("something follows the last chunk")
            return {}
        return self._trailers(tail)

    def _trailers(self, tail: bytes) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in tail.replace(b"\r\n", b"\n").split(b"\n"):
            if not line:
                continue
            match = _TRAILER.fullmatch(line)
            name = match[1].decode().lower() if match else ""
            if match is None or name in found:
                raise S3Error("MalformedTrailerError", 400, "The trailers of the body are malformed.")
            found[name] = match[2].decode()
        if tail and not tail.endswith(b"\n"):
            raise _broken("its trailers are cut")
        signature = found.pop(_TRAILER_SIGNATURE, None)
        if set(found) != self._announced:
            raise S3Error("MalformedTrailerError", 400, "The trailers are not those that x-amz-trailer announced.")
        if self._signatures is not None and (found or signature is not None):
            if signature is None:
                raise S3Error("SignatureDoesNotMatch", 403, "The trailers of the body are not signed.")
            canonical = "".join(f"{name}:{value}\n" for name, value in found.items())
            digest = hashlib.sha256(canonical.encode()).hexdigest()
            self._signatures.check("TRAILER", (), digest, signature.encode())
        return found
