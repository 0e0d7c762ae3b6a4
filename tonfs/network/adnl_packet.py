"""ADNL datagrams and `adnl.packetContents` (reference protocol 2.2-2.6): bytes in, values out, and back.

Nothing here knows a peer's state. Parsers raise BadPacket for everything that breaks the format.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from ..errors import BadPacket
from . import tl
from .address import AddressList
from .aes_ctr import crypt
from .keys import KeyPair, boxed_public, read_public, short_id, verify

MAX_DATAGRAM: Final = 1440
"""C++ never sends more; neither do we."""
MAX_RECEIVED: Final = 2048
MAX_MESSAGE: Final = 1152
"""A boxed message above this travels in parts."""
PART_SIZE: Final = 1024
MAX_WHOLE: Final = 8192 + 128
"""Longest message that may travel in parts."""

F_FROM: Final = 1 << 0
F_FROM_SHORT: Final = 1 << 1
F_MESSAGE: Final = 1 << 2
F_MESSAGES: Final = 1 << 3
F_ADDRESS: Final = 1 << 4
F_PRIORITY_ADDRESS: Final = 1 << 5
F_SEQNO: Final = 1 << 6
F_CONFIRM: Final = 1 << 7
F_ADDRESS_VERSION: Final = 1 << 8
F_PRIORITY_VERSION: Final = 1 << 9
F_REINIT: Final = 1 << 10
F_SIGNATURE: Final = 1 << 11
F_ALL: Final = 0x1FFF

_U32 = struct.Struct("<I")
_PACKET_ID: Final = tl.ADNL_PACKET_CONTENTS.to_bytes(4, "little")


@dataclass(frozen=True, slots=True)
class Query:
    query_id: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    query_id: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Custom:
    data: bytes


@dataclass(frozen=True, slots=True)
class Nop:
    pass


@dataclass(frozen=True, slots=True)
class Reinit:
    date: int


@dataclass(frozen=True, slots=True)
class CreateChannel:
    key: bytes
    date: int


@dataclass(frozen=True, slots=True)
class ConfirmChannel:
    key: bytes
    peer_key: bytes
    date: int


@dataclass(frozen=True, slots=True)
class Part:
    hash: bytes
    total_size: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    value: int


@dataclass(frozen=True, slots=True)
class Pong:
    value: int


Message = Query | Answer | Custom | Nop | Reinit | CreateChannel | ConfirmChannel | Part | Ping | Pong


def pack_message(message: Message) -> bytes:
    """A boxed adnl.Message."""
    match message:
        case Query(query_id, data):
            return tl.Writer(tl.ADNL_QUERY).int256(query_id).bytes_(data).done()
        case Answer(query_id, data):
            return tl.Writer(tl.ADNL_ANSWER).int256(query_id).bytes_(data).done()
        case Custom(data):
            return tl.Writer(tl.ADNL_CUSTOM).bytes_(data).done()
        case Nop():
            return tl.Writer(tl.ADNL_NOP).done()
        case Reinit(date):
            return tl.Writer(tl.ADNL_REINIT).i32(date).done()
        case CreateChannel(key, date):
            return tl.Writer(tl.ADNL_CREATE_CHANNEL).int256(key).i32(date).done()
        case ConfirmChannel(key, peer_key, date):
            return tl.Writer(tl.ADNL_CONFIRM_CHANNEL).int256(key).int256(peer_key).i32(date).done()
        case Part(digest, total_size, offset, data):
            return tl.Writer(tl.ADNL_PART).int256(digest).i32(total_size).i32(offset).bytes_(data).done()
        case Ping(value):
            return tl.Writer(tl.ADNL_PING).u64(value).done()
        case Pong(value):
            return tl.Writer(tl.ADNL_PONG).u64(value).done()


def read_message(reader: tl.Reader) -> Message:
    """One boxed adnl.Message. Raises BadPacket."""
    tag = reader.u32()
    if tag == tl.ADNL_CUSTOM:
        return Custom(reader.bytes_(MAX_WHOLE))
    if tag == tl.ADNL_QUERY:
        return Query(reader.int256(), reader.bytes_(MAX_WHOLE))
    if tag == tl.ADNL_ANSWER:
        return Answer(reader.int256(), reader.bytes_(MAX_WHOLE))
    if tag == tl.ADNL_NOP:
        return Nop()
    if tag == tl.ADNL_CREATE_CHANNEL:
        return CreateChannel(reader.int256(), reader.i32())
    if tag == tl.ADNL_CONFIRM_CHANNEL:
        return ConfirmChannel(reader.int256(), reader.int256(), reader.i32())
    if tag == tl.ADNL_PART:
        return Part(reader.int256(), reader.i32(), reader.i32(), reader.bytes_(MAX_RECEIVED))
    if tag == tl.ADNL_REINIT:
        return Reinit(reader.i32())
    if tag == tl.ADNL_PING:
        return Ping(reader.u64())
    if tag == tl.ADNL_PONG:
        return Pong(reader.u64())
    raise BadPacket(f"unknown ADNL message {tag:08x}")


def parse_message(data: bytes) -> Message:
    """A boxed adnl.Message that fills `data`. Raises BadPacket."""
    reader = tl.Reader(data)
    message = read_message(reader)
    reader.end()
    return message


def _read_own_list(reader: tl.Reader) -> AddressList:
    found = AddressList.read(reader)
    if found.version == -1:
        raise BadPacket("address list of version -1")  # C++ rejects such a packet too (reference 2.2)
    return found


@dataclass(frozen=True, slots=True)
class PacketContents:
    """`adnl.packetContents`. Fields that are None are absent; dates are unix seconds."""

    messages: tuple[Message, ...] = ()
    from_key: bytes | None = None
    from_short: bytes | None = None
    address: AddressList | None = None
    seqno: int | None = None
    confirm_seqno: int | None = None
    address_version: int | None = None
    reinit_date: int | None = None
    dst_reinit_date: int | None = None
    signature: bytes | None = None
    signed: bytes = b""
    """What the signature covers (set by the parser)."""


def parse_contents(plain: bytes) -> PacketContents:
    """A boxed adnl.packetContents that fills `plain`. Raises BadPacket."""
    reader = tl.Reader(plain)
    reader.expect(tl.ADNL_PACKET_CONTENTS)
    reader.bytes_(64)
    flags_at = reader.pos
    flags = reader.u32()
    if flags & ~F_ALL:
        raise BadPacket(f"unknown packet flags {flags:x}")
    if flags & F_MESSAGE and flags & F_MESSAGES:
        raise BadPacket("message and messages in one packet")
    from_key = read_public(reader) if flags & F_FROM else None
    from_short = reader.int256() if flags & F_FROM_SHORT else None
    if from_key is not None and from_short is not None and short_id(from_key) != from_short:
        raise BadPacket("from and from_short differ")
    messages: tuple[Message, ...] = ()
    if flags & F_MESSAGE:
        messages = (read_message(reader),)
    elif flags & F_MESSAGES:
        messages = tuple([read_message(reader) for _ in range(reader.count(64))])
    address = _read_own_list(reader) if flags & F_ADDRESS else None
    if flags & F_PRIORITY_ADDRESS:
        _read_own_list(reader)
    seqno = reader.i64() if flags & F_SEQNO else None
    confirm = reader.i64() if flags & F_CONFIRM else None
    version = reader.i32() if flags & F_ADDRESS_VERSION else None
    if flags & F_PRIORITY_VERSION:
        reader.i32()
    reinit = dst_reinit = None
    if flags & F_REINIT:
        reinit, dst_reinit = reader.i32(), reader.i32()
    signature_at = reader.pos
    signature = reader.bytes_(64) if flags & F_SIGNATURE else None
    rand2_at = reader.pos
    reader.bytes_(64)
    reader.end()
    signed = b""
    if signature is not None:
        unsigned_flags = _U32.pack(flags & ~F_SIGNATURE)
        signed = b"".join((plain[:flags_at], unsigned_flags, plain[flags_at + 4 : signature_at], plain[rand2_at:]))
    return PacketContents(
        messages, from_key, from_short, address, seqno, confirm, version, reinit, dst_reinit, signature, signed
    )


def check_signature(contents: PacketContents, public_key: bytes) -> None:
    """Raises BadPacket unless the owner of `public_key` signed this packet."""
    if contents.signature is None or not verify(public_key, contents.signed, contents.signature):
        raise BadPacket("root packet without a good signature")


def build_contents(
    messages: list[bytes],
    *,
    seqno: int,
    confirm_seqno: int,
    from_key: bytes | None = None,
    address: bytes | None = None,
    address_version: int | None = None,
    dates: tuple[int, int] | None = None,
    sign: KeyPair | None = None,
    rand1: bytes | None = None,
    rand2: bytes | None = None,
) -> bytes:
    """A boxed adnl.packetContents of boxed messages; `dates` = (reinit_date, dst_reinit_date); `address` is bare.

    `rand1`/`rand2` are 7 bytes, random unless given. With `sign` the packet is signed by that key.
    """
    flags = F_SEQNO | F_CONFIRM | (F_MESSAGE if len(messages) == 1 else F_MESSAGES)
    middle: list[bytes] = []
    if from_key is not None:
        flags |= F_FROM
        middle.append(boxed_public(from_key))
    if len(messages) != 1:
        middle.append(_U32.pack(len(messages)))
    middle.extend(messages)
    if address is not None:
        flags |= F_ADDRESS
        middle.append(address)
    middle.append(struct.pack("<qq", seqno, confirm_seqno))
    if address_version is not None:
        flags |= F_ADDRESS_VERSION
        middle.append(struct.pack("<i", address_version))
    if dates is not None:
        flags |= F_REINIT
        middle.append(struct.pack("<ii", *dates))
    head = _PACKET_ID + b"\x07" + (rand1 or os.urandom(7))
    tail = b"\x07" + (rand2 or os.urandom(7))
    body = b"".join(middle)
    if sign is None:
        return b"".join((head, _U32.pack(flags), body, tail))
    signature = sign.sign(b"".join((head, _U32.pack(flags), body, tail)))
    return b"".join((head, _U32.pack(flags | F_SIGNATURE), body, tl.pack_bytes(signature), tail))


def seal(secret: bytes, plain: bytes) -> bytes:
    """sha256(plain) followed by the encrypted plain: the tail of every datagram."""
    digest = sha256(plain).digest()
    return digest + crypt(secret[:16] + digest[16:], digest[:4] + secret[20:], plain)


def unseal(secret: bytes, datagram: bytes, start: int) -> bytes:
    """The plain bytes of what `seal` made, found at `start`. Raises BadPacket unless the checksum matches."""
    digest = datagram[start : start + 32]
    if len(datagram) > MAX_RECEIVED or len(digest) != 32:
        raise BadPacket("datagram of a wrong size")
    plain = crypt(secret[:16] + digest[16:], digest[:4] + secret[20:], datagram[start + 32 :])
    if sha256(plain).digest() != digest:
        raise BadPacket("datagram checksum does not match")
    return plain


def seal_root(peer_public: bytes, peer_id: bytes, plain: bytes) -> bytes:
    """A root datagram to the owner of `peer_public`, with a fresh ephemeral key. Raises BadPacket for a bad key."""
    ephemeral = KeyPair.generate()
    return b"".join((peer_id, ephemeral.public_key, seal(ephemeral.x25519(peer_public), plain)))


def open_root(own: KeyPair, datagram: bytes) -> bytes:
    """The plain bytes of a root datagram to `own` (whose id the caller has matched). Raises BadPacket."""
    if len(datagram) < 96 + 24:
        raise BadPacket("root datagram is too short")
    return unseal(own.x25519(datagram[32:64]), datagram, 64)
