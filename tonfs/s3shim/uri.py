"""Percent-encoding as S3 and its signatures want it: strict, on bytes, never normalising."""

from __future__ import annotations

import re
from typing import Final

from ..errors import S3Error

_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})?")
_KEEP: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_TABLE: Final = tuple(chr(b) if b in _KEEP else f"%{b:02X}" for b in range(256))

Pairs = list[tuple[str, bytes, bytes]]
"""Query parameters in their order: (name for looking up, name, value). The name for looking up is latin-1 text."""


def invalid_uri(detail: str) -> S3Error:
    return S3Error("InvalidURI", 400, f"Couldn't parse the specified URI: {detail}.")


def decode(text: str) -> bytes:
    """Percent-decode; `+` stays `+`. Raises S3Error(InvalidURI) for a `%` without two hex digits."""
    raw = text.encode("utf-8", "surrogateescape")
    if b"%" not in raw:
        return raw

    def one(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise invalid_uri("a % is not followed by two hex digits")
        return bytes((int(match[1], 16),))

    return _ESCAPE.sub(one, raw)


_PLAIN: Final = re.compile(rb"[A-Za-z0-9._~-]*")
_PLAIN_PATH: Final = re.compile(rb"[A-Za-z0-9._~/-]*")


def is_plain_path(path: str) -> bool:
    """Made of nothing that could be percent-encoded or is."""
    return path.isascii() and _PLAIN_PATH.fullmatch(path.encode("ascii")) is not None


def encode(data: bytes, keep_slash: bool = False) -> str:
    """Percent-encode everything but A-Z a-z 0-9 - . _ ~ (and `/` when asked), hex digits in upper case."""
    if (_PLAIN_PATH if keep_slash else _PLAIN).fullmatch(data):
        return data.decode("ascii")
    text = "".join(_TABLE[byte] for byte in data)
    return text.replace("%2F", "/") if keep_slash else text


def split_target(target: str) -> tuple[str, str]:
    """(raw path, raw query) of a request target in origin form. Raises S3Error(InvalidURI)."""
    if not target.startswith("/"):
        raise invalid_uri("the request target must be a path")
    path, _, query = target.partition("?")
    return path, query


def parse_query(raw: str) -> Pairs:
    """Raises S3Error(InvalidURI) for a bad escape."""
    pairs: Pairs = []
    for item in raw.split("&"):
        if item:
            name, _, value = item.partition("=")
            key = decode(name)
            pairs.append((key.decode("latin-1"), key, decode(value)))
    return pairs
