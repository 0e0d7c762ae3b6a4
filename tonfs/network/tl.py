"""TL serialization: a bounded reader, a writer, and the constructor ids that the network room uses.

Rules in reference protocol 0.1: little-endian integers, 4-byte aligned byte strings, bare vectors, boxed objects
begin with a 32-bit constructor id. Ids here are the *numbers*; `Writer.u32` puts them on the wire little-endian.
Every malformed input ends in `BadPacket`; nothing here allocates more than the input's own length.
"""

from __future__ import annotations

import struct
from typing import Final

from ..errors import BadPacket

_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")
_U64 = struct.Struct("<Q")
_I64 = struct.Struct("<q")

MAX_BYTES: Final = 1 << 25
"""Longest TL byte string we ever accept (the largest answer anybody asks for, reference 3.2)."""

MAX_TEXT: Final = 1024
"""Bytes of a text of others that are shown."""

BOOL_TRUE: Final = 0x997275B5
BOOL_FALSE: Final = 0xBC799737

PUB_ED25519: Final = 0x4813B4C6
PUB_AES: Final = 0x2DBCADD4
PUB_OVERLAY: Final = 0x34BA45CB
PUB_UNENC: Final = 0xB61F450A

ADNL_ADDRESS_UDP: Final = 0x670DA6E7
ADNL_ADDRESS_UDP6: Final = 0xE31D63FA
ADNL_ADDRESS_TUNNEL: Final = 0x092B02EB
ADNL_ADDRESS_REVERSE: Final = 0x27795286
ADNL_ADDRESS_QUIC: Final = 0x78017253
ADNL_ADDRESS_LIST: Final = 0x2227E658
ADNL_PACKET_CONTENTS: Final = 0xD142CD89
ADNL_CREATE_CHANNEL: Final = 0xE673C3BB
ADNL_CONFIRM_CHANNEL: Final = 0x60DD1D69
ADNL_QUERY: Final = 0xB48BF97A
ADNL_ANSWER: Final = 0x0FAC8416
ADNL_CUSTOM: Final = 0x204818F5
ADNL_NOP: Final = 0x17F8DFDA
ADNL_REINIT: Final = 0x10C20520
ADNL_PART: Final = 0xFD452D39
ADNL_PING: Final = 0x1FAAA1BF
ADNL_PONG: Final = 0x20747C0E

RLDP2_MESSAGE_PART: Final = 0x11480B6E
RLDP2_CONFIRM: Final = 0x23E69945
RLDP2_COMPLETE: Final = 0x36B9081F
RLDP_QUERY: Final = 0x8A794D69
RLDP_ANSWER: Final = 0xA3FC5C03
FEC_RAPTORQ: Final = 0x8B93A7E0

OVERLAY_QUERY: Final = 0xCCFD8443
OVERLAY_QUERY_EXTRA: Final = 0x94FFC3E9
OVERLAY_GET_RANDOM_PEERS: Final = 0x48EE64AB
OVERLAY_PING: Final = 0x690CB481
OVERLAY_PONG: Final = 0x67700804
OVERLAY_NODE: Final = 0xB86B8A83
OVERLAY_NODES: Final = 0xE487290E
OVERLAY_NODE_TO_SIGN: Final = 0x03D8A8E1

DHT_NODE: Final = 0x84533248
DHT_NODES: Final = 0x7974A0BE
DHT_KEY: Final = 0xF667DE8F
DHT_KEY_DESCRIPTION: Final = 0x281D4E05
DHT_VALUE: Final = 0x90AD27CB
DHT_RULE_SIGNATURE: Final = 0xCC9F31F7
DHT_RULE_ANYBODY: Final = 0x61578E14
DHT_RULE_OVERLAY_NODES: Final = 0x26779383
DHT_PING: Final = 0xCBEB3F18
DHT_PONG: Final = 0x5A8AEF81
DHT_FIND_NODE: Final = 0x6CE2CE6B
DHT_FIND_VALUE: Final = 0xAE4B6011
DHT_VALUE_FOUND: Final = 0xE40CF774
DHT_VALUE_NOT_FOUND: Final = 0xA2620568
DHT_STORE: Final = 0x34934212
DHT_STORED: Final = 0x7026FB08
DHT_GET_SIGNED_ADDRESS_LIST: Final = 0xA97948ED
DHT_QUERY: Final = 0x7D530769

STORAGE_PING: Final = 0x44F3F211
STORAGE_PONG: Final = 0x6CF5C6A5
STORAGE_GET_TORRENT_INFO: Final = 0x91C4962A
STORAGE_TORRENT_INFO: Final = 0x14CED0EE
STORAGE_ADD_UPDATE: Final = 0x4D3135D2
STORAGE_UPDATE_INIT: Final = 0xCE33E0B6
STORAGE_UPDATE_HAVE_PIECES: Final = 0x3BF82049
STORAGE_UPDATE_STATE: Final = 0x05B034B5
STORAGE_STATE: Final = 0x3313708A
STORAGE_OK: Final = 0xC32B1C05
STORAGE_GET_PIECE: Final = 0x807AE660
STORAGE_PIECE: Final = 0x80B4FA0D

PROVIDER_RATES_REQUEST: Final = 0x712360C6
PROVIDER_RATES_RESPONSE: Final = 0xF7B19B30
PROVIDER_STORAGE_REQUEST: Final = 0x512D302C
PROVIDER_STORAGE_RESPONSE: Final = 0x4B334EE5
PROVIDER_ADNL_PROOF_REQUEST: Final = 0x1E260A8A
PROVIDER_ADNL_PROOF_RESPONSE: Final = 0xB00A4145
PROVIDER_DHT_RECORD: Final = 0x212CEF61


def constructor_id(data: bytes | memoryview) -> int:
    """The number of a boxed object's constructor, or -1 when there are fewer than four bytes."""
    return int(_U32.unpack_from(data)[0]) if len(data) >= 4 else -1


def readable(data: bytes) -> str:
    """Foreign text for people and logs: bad UTF-8 replaced, control characters gone, at most `MAX_TEXT` bytes of it."""
    return "".join(c if c.isprintable() else " " for c in data[:MAX_TEXT].decode("utf-8", "replace"))


class Reader:
    """Reads one TL object from `data`, starting at `pos`. Every method raises BadPacket when bytes are missing."""

    __slots__ = ("_data", "_end", "pos")

    def __init__(self, data: bytes | bytearray | memoryview, pos: int = 0) -> None:
        self._data = data
        self._end = len(data)
        self.pos = pos

    @property
    def remaining(self) -> int:
        return self._end - self.pos

    def _take(self, count: int) -> int:
        start = self.pos
        if count > self._end - start:
            raise BadPacket("TL object is cut short")
        self.pos = start + count
        return start

    def u32(self) -> int:
        """`#` and ids: unsigned 32 bits."""
        return int(_U32.unpack_from(self._data, self._take(4))[0])

    def i32(self) -> int:
        """`int`: signed 32 bits."""
        return int(_I32.unpack_from(self._data, self._take(4))[0])

    def u64(self) -> int:
        """`long` whose 64 bits are an id or a mask."""
        return int(_U64.unpack_from(self._data, self._take(8))[0])

    def i64(self) -> int:
        """`long`: signed 64 bits."""
        return int(_I64.unpack_from(self._data, self._take(8))[0])

    def raw(self, count: int) -> bytes:
        """Exactly `count` bytes without a length prefix."""
        start = self._take(count)
        return bytes(self._data[start : start + count])

    def int256(self) -> bytes:
        return self.raw(32)

    def bytes_(self, limit: int = MAX_BYTES) -> bytes:
        """`bytes`/`string` of at most `limit` bytes. Padding must be there; its value is not looked at."""
        first = self._data[self._take(1)]
        head = 1
        size = first
        if first == 254:
            size = int.from_bytes(self.raw(3), "little")
            head = 4
        elif first == 255:
            size = int.from_bytes(self.raw(7), "little")
            head = 8
        if size > limit:
            raise BadPacket(f"TL bytes of {size} bytes; at most {limit} are allowed here")
        start = self._take(size)
        self._take(-(head + size) % 4)
        return bytes(self._data[start : start + size])

    def bool_(self) -> bool:
        tag = self.u32()
        if tag not in (BOOL_TRUE, BOOL_FALSE):
            raise BadPacket(f"not a Bool: {tag:08x}")
        return tag == BOOL_TRUE

    def count(self, limit: int, element: int = 4) -> int:
        """Length of a bare vector: at most `limit`, and no more than `element`-byte elements fit in the rest."""
        number = self.u32()
        if number > limit or number * element > self.remaining:
            raise BadPacket(f"vector of {number} elements does not fit")
        return number

    def expect(self, constructor: int) -> None:
        """Consume a constructor id that must be this one."""
        tag = self.u32()
        if tag != constructor:
            raise BadPacket(f"expected constructor {constructor:08x}, got {tag:08x}")

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.raw(self.remaining)

    def end(self) -> None:
        """The object must end here (both daemons reject trailing bytes)."""
        if self.pos != self._end:
            raise BadPacket(f"{self.remaining} bytes after the end of a TL object")


def _bytes_parts(data: bytes | memoryview) -> tuple[bytes, bytes | memoryview, bytes]:
    """Prefix, data and padding of `bytes`."""
    size = len(data)
    if size < 254:
        head = bytes((size,))
    elif size < 1 << 24:
        head = b"\xfe" + size.to_bytes(3, "little")
    else:
        head = b"\xff" + size.to_bytes(7, "little")
    return head, data, bytes(-(len(head) + size) % 4)


def pack_bytes(data: bytes | memoryview) -> bytes:
    """`bytes` with prefix and padding."""
    return b"".join(_bytes_parts(data))


class Writer:
    """Builds a TL object; every method returns the writer, so calls chain."""

    __slots__ = ("_parts",)

    def __init__(self, constructor: int | None = None) -> None:
        self._parts: list[bytes | memoryview] = []
        if constructor is not None:
            self.u32(constructor)

    def u32(self, value: int) -> Writer:
        """Any 32-bit number, signed or unsigned: taken modulo 2**32."""
        self._parts.append(_U32.pack(value & 0xFFFFFFFF))
        return self

    i32 = u32

    def u64(self, value: int) -> Writer:
        """Any 64-bit number, signed or unsigned: taken modulo 2**64."""
        self._parts.append(_U64.pack(value & 0xFFFFFFFFFFFFFFFF))
        return self

    i64 = u64

    def raw(self, data: bytes) -> Writer:
        """Bytes as they are: a nested object, int128 or int256."""
        self._parts.append(data)
        return self

    def int256(self, data: bytes) -> Writer:
        if len(data) != 32:
            raise ValueError(f"int256 of {len(data)} bytes")
        self._parts.append(data)
        return self

    def bytes_(self, data: bytes | memoryview) -> Writer:
        self._parts.extend(_bytes_parts(data))  # joined once, in `done`: a piece is long
        return self

    def bool_(self, value: bool) -> Writer:
        return self.u32(BOOL_TRUE if value else BOOL_FALSE)

    def vector(self, items: list[bytes]) -> Writer:
        """Bare vector of elements that are already serialized."""
        self.u32(len(items))
        self._parts.extend(items)
        return self

    def done(self) -> bytes:
        return b"".join(self._parts)
