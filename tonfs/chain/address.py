"""Account addresses: every usual form in, the user-friendly form out.

Friendly: base64 (ordinary or url-safe alphabet) of tag, workchain, 32 bytes, CRC-16/XMODEM. Tag 0x11 bounceable, 0x51
not, bit 0x80 for testnet only.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final, NamedTuple

from ..errors import UsageError
from ..ids import Address

BOUNCEABLE: Final = 0x11
NON_BOUNCEABLE: Final = 0x51
TEST_ONLY: Final = 0x80

_RAW: Final = re.compile(r"(-1|0):([0-9a-fA-F]{64})")
_FRIENDLY: Final = re.compile(r"[A-Za-z0-9+/_-]{48}")


class ParsedAddress(NamedTuple):
    """An address and what its written form says; a raw form counts as bounceable and for any network."""

    address: Address
    bounceable: bool
    test_only: bool


def parse(text: str) -> ParsedAddress:
    """Read `0:hex`, `EQ…`, `UQ…`, `kQ…`, `0Q…` in either base64 alphabet. Raises UsageError."""
    word = text.strip()
    match = _RAW.fullmatch(word)
    if match is not None:
        return ParsedAddress(Address(f"{match[1]}:{match[2].lower()}"), True, False)
    if _FRIENDLY.fullmatch(word) is None:
        raise UsageError(f"{text[:80]!r} is not an address.", hint="Try the form EQ… or UQ… (48 characters) or 0:hex.")
    data = base64.urlsafe_b64decode(word.replace("+", "-").replace("/", "_"))
    if binascii.crc_hqx(data[:34], 0) != int.from_bytes(data[34:], "big"):
        raise UsageError(f"The address {word} has a wrong checksum.", hint="Copy it again; one character is wrong.")
    tag, workchain = data[0] & ~TEST_ONLY, int.from_bytes(data[1:2], "big", signed=True)
    if tag not in (BOUNCEABLE, NON_BOUNCEABLE) or workchain not in (0, -1):
        raise UsageError(f"The address {word} is of an unknown kind.")
    return ParsedAddress(Address(f"{workchain}:{data[2:34].hex()}"), tag == BOUNCEABLE, bool(data[0] & TEST_ONLY))


def parse_address(text: str) -> Address:
    """The raw form of any written form. Raises UsageError."""
    return parse(text).address


def friendly(address: Address, *, bounceable: bool = True, test_only: bool = False) -> str:
    """Url-safe user-friendly form. Contracts are shown bounceable (`EQ…`), wallets not (`UQ…`)."""
    workchain, account = split(address)
    tag = (BOUNCEABLE if bounceable else NON_BOUNCEABLE) | (TEST_ONLY if test_only else 0)
    data = bytes((tag, workchain & 0xFF)) + account
    return base64.urlsafe_b64encode(data + binascii.crc_hqx(data, 0).to_bytes(2, "big")).decode("ascii")


def split(address: Address) -> tuple[int, bytes]:
    """(workchain, 32 bytes) of a raw address."""
    workchain, _, digits = address.partition(":")
    return int(workchain), bytes.fromhex(digits)


def join(workchain: int, account: bytes) -> Address:
    return Address(f"{workchain}:{account.hex()}")
