"""Digests of an object's bytes: MD5 for the ETag, SHA-256 for the signature, and the five `x-amz-checksum-*`.

CRC values travel big-endian in base64. CRC32C and CRC64NVME come from anycrc.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import anycrc

from ..errors import S3Error

PREFIX: Final = "x-amz-checksum-"


class Digest(Protocol):
    def update(self, data: bytes | memoryview, /) -> object: ...

    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | memoryview) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class _AnyCrc:
    def __init__(self, model: str, size: int) -> None:
        self._model = anycrc.Model(model)
        self._size = size
        self._value: int = self._model.calc(b"")

    def update(self, data: bytes | memoryview) -> None:
        self._value = self._model.calc(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


ALGORITHMS: Final[Mapping[str, tuple[Callable[[], Digest], int]]] = {
    "crc32": (_Crc32, 4),
    "crc32c": (lambda: _AnyCrc("CRC32C", 4), 4),
    "crc64nvme": (lambda: _AnyCrc("CRC64-NVME", 8), 8),
    "sha1": (hashlib.sha1, 20),
    "sha256": (hashlib.sha256, 32),
}
"""Name in lower case -> (makes a digest, its size in bytes)."""


def new(algorithm: str) -> Digest:
    return ALGORITHMS[algorithm][0]()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _strict(text: str, size: int) -> bytes | None:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        return None
    return data if len(data) == size and b64(data) == text else None


def parse_md5(text: str) -> bytes:
    """The value of Content-MD5. Raises S3Error(InvalidDigest)."""
    data = _strict(text, 16)
    if data is None:
        raise S3Error("InvalidDigest", 400, "The Content-MD5 you specified is not valid.")
    return data


def known(algorithm: str) -> str:
    """The algorithm in lower case. Raises S3Error for one that is not offered here."""
    name = algorithm.strip().lower()
    if name not in ALGORITHMS:
        listed = ", ".join(name.upper() for name in ALGORITHMS)
        raise S3Error("InvalidRequest", 400, f"Checksum algorithm provided is unsupported. Please try one of {listed}.")
    return name


def parse_checksum(algorithm: str, text: str) -> str:
    """A checksum's value, checked for its form. Raises S3Error(BadDigest)."""
    if _strict(text, ALGORITHMS[algorithm][1]) is None:
        raise S3Error("BadDigest", 400, f"Value for {PREFIX}{algorithm} header is invalid.")
    return text


def combine(algorithm: str, parts: Iterable[tuple[str, int]]) -> str:
    """The checksum of a whole object from (base64, size) of its parts; only for the CRCs."""
    model, size = _MODELS[algorithm]
    total = 0
    for text, length in parts:
        total = model.combine(total, int.from_bytes(base64.b64decode(text), "big"), length)
    return b64(total.to_bytes(size, "big"))


def composite(algorithm: str, parts: Iterable[str]) -> str:
    """The checksum of the parts' checksums, with their number."""
    digest, count = new(algorithm), 0
    for text in parts:
        digest.update(base64.b64decode(text))
        count += 1
    return f"{b64(digest.digest())}-{count}"


_MODELS: Final = {
    "crc32": (anycrc.Model("CRC32"), 4),
    "crc32c": (anycrc.Model("CRC32C"), 4),
    "crc64nvme": (anycrc.Model("CRC64-NVME"), 8),
}
LINEAR: Final = frozenset(_MODELS)
"""Algorithms that give the whole object's checksum from those of its parts."""

_NOT_ALGORITHMS: Final = frozenset({"mode", "type", "algorithm"})


def declared(headers: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """(algorithm, base64 value) of the `x-amz-checksum-*` header, None without one.

    Raises S3Error for two of them, an unknown algorithm, or a value that cannot be one.
    """
    found: tuple[str, str] | None = None
    for key, value in headers:
        if not key.startswith(PREFIX) or key[len(PREFIX) :] in _NOT_ALGORITHMS:
            continue
        if found is not None:
            raise S3Error("InvalidRequest", 400, "Expecting a single x-amz-checksum- header.")
        algorithm = known(key[len(PREFIX) :])
        found = (algorithm, parse_checksum(algorithm, value))
    return found


def announced_algorithm(trailers: frozenset[str]) -> str | None:
    """The algorithm whose checksum comes as a trailer. Raises S3Error for any other trailer."""
    algorithms = []
    for name in trailers:
        if not name.startswith(PREFIX):
            raise S3Error("InvalidRequest", 400, f"The trailer {name[:60]!r} is not supported.")
        algorithms.append(known(name[len(PREFIX) :]))
    if len(algorithms) > 1:
        raise S3Error("InvalidRequest", 400, "Expecting a single x-amz-checksum- trailer.")
    return algorithms[0] if algorithms else None


def same(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode(), right.encode())


def wrong_checksum(algorithm: str) -> S3Error:
    name = algorithm.upper()
    return S3Error("BadDigest", 400, f"The {name} you specified did not match the calculated checksum.")
