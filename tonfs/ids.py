"""Identifiers and amounts that every room shares. Each is a NewType: mixing two up is a type error."""

from __future__ import annotations

import re
from typing import Final, NewType

Inode = NewType("Inode", int)
"""Inode number of a volume; stable for the life of a file and never reused."""

PackId = NewType("PackId", int)
"""Row id of a pack in the index."""

BagId = NewType("BagId", bytes)
"""32 bytes: representation hash of a bag's TorrentInfo cell. Printed as 64 lower-case hex digits."""

AdnlId = NewType("AdnlId", bytes)
"""32 bytes: short id of an ADNL key, sha256 of its boxed public key."""

ProviderKey = NewType("ProviderKey", bytes)
"""32 bytes: Ed25519 public key that names a storage provider."""

Address = NewType("Address", str)
"""Account address in raw form, `workchain:64 hex digits`, lower case."""

NanoTon = NewType("NanoTon", int)
"""An amount of coins; 10**9 are one TON. Never a float."""

NANO: Final = 10**9

_HEX64 = re.compile(r"[0-9a-fA-F]{64}")
_RAW_ADDRESS = re.compile(r"(-1|0):[0-9a-fA-F]{64}")


def bag_id(text: str) -> BagId:
    """Parse 64 hex digits of any case. Raises ValueError."""
    if not _HEX64.fullmatch(text):
        raise ValueError(f"not a BagID (64 hex digits): {text[:80]!r}")
    return BagId(bytes.fromhex(text))


def provider_key(text: str) -> ProviderKey:
    """Parse 64 hex digits of any case. Raises ValueError."""
    if not _HEX64.fullmatch(text):
        raise ValueError(f"not a provider key (64 hex digits): {text[:80]!r}")
    return ProviderKey(bytes.fromhex(text))


def raw_address(text: str) -> Address:
    """Check the raw form `0:hex`. Raises ValueError. (Friendly forms are chain's business.)"""
    if not _RAW_ADDRESS.fullmatch(text):
        raise ValueError(f"not a raw address: {text[:80]!r}")
    return Address(text.lower())


def parse_ton(text: str) -> NanoTon:
    """Parse `0.05`, `0.05 TON` or `50000000n` (reference cli.md section 1). Raises ValueError."""
    word = text.strip()
    if re.fullmatch(r"\d{1,30}n", word):
        return NanoTon(int(word[:-1]))
    match = re.fullmatch(r"(\d{1,18})(?:\.(\d{1,9}))?(?:\s*TON)?", word, re.IGNORECASE)
    if match is None:
        raise ValueError(f"not an amount: {text[:40]!r} (try 0.05, '0.05 TON' or 50000000n)")
    return NanoTon(int(match[1]) * NANO + int((match[2] or "").ljust(9, "0")))


def format_ton(amount: int) -> str:
    """Exact decimal TON, at least two digits after the point: `1.50`, `0.000000001`."""
    sign, value = ("-", -amount) if amount < 0 else ("", amount)
    fraction = f"{value % NANO:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{value // NANO}.{fraction}"


class Secret:
    """Bytes that must not be shown: no repr, no str, no format gives them away. Use `.reveal()` on purpose."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__
