"""`storage.*` messages: what a storage peer says inside a bag's overlay (reference protocol 5.1).

Parsers take exactly one boxed object, consume all of it and raise BadPacket for everything else. Session ids are
unsigned 64-bit numbers here, seqnos unsigned 32-bit ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..errors import BadPacket
from . import tl

BLOCK_BYTES: Final = 6000
"""Bytes of a have-set in one updateInit; every block but the last has exactly this size."""
BLOCK_PIECES: Final = 8 * BLOCK_BYTES
MAX_HAVE_IDS: Final = 1500
"""Ids in one updateHavePieces."""
MAX_PIECE: Final = 1 << 23
MAX_PROOF: Final = 1 << 16
MAX_INFO: Final = 1 << 16
ANSWER_SLACK: Final = 1 << 16
"""What an answer with a piece may be longer than the piece (reference 9.2)."""


@dataclass(frozen=True)
class State:
    """`storage.state`: I am willing to answer your getPiece now; you have pieces that I miss."""

    will_upload: bool
    want_download: bool


@dataclass(frozen=True)
class UpdateInit:
    """A block of the have-set: bit i of `have` (least significant first) is piece `offset` + i."""

    have: bytes
    offset: int
    state: State


@dataclass(frozen=True)
class UpdateHavePieces:
    pieces: tuple[int, ...]


@dataclass(frozen=True)
class UpdateState:
    state: State


Update = UpdateInit | UpdateHavePieces | UpdateState


@dataclass(frozen=True)
class Ping:
    session_id: int


@dataclass(frozen=True)
class GetTorrentInfo:
    pass


@dataclass(frozen=True)
class AddUpdate:
    session_id: int
    seqno: int
    update: Update


@dataclass(frozen=True)
class GetPiece:
    piece: int


Query = Ping | GetTorrentInfo | AddUpdate | GetPiece

PONG: Final = tl.STORAGE_PONG.to_bytes(4, "little")
OK: Final = tl.STORAGE_OK.to_bytes(4, "little")
GET_TORRENT_INFO: Final = tl.STORAGE_GET_TORRENT_INFO.to_bytes(4, "little")


def _pack_state(writer: tl.Writer, state: State) -> tl.Writer:
    return writer.u32(tl.STORAGE_STATE).bool_(state.will_upload).bool_(state.want_download)


def _read_state(reader: tl.Reader) -> State:
    reader.expect(tl.STORAGE_STATE)
    return State(reader.bool_(), reader.bool_())


def pack_ping(session_id: int) -> bytes:
    return tl.Writer(tl.STORAGE_PING).u64(session_id).done()


def pack_get_piece(piece: int) -> bytes:
    return tl.Writer(tl.STORAGE_GET_PIECE).u32(piece).done()


def pack_add_update(session_id: int, seqno: int, update: Update) -> bytes:
    writer = tl.Writer(tl.STORAGE_ADD_UPDATE).u64(session_id).u32(seqno)
    match update:
        case UpdateInit(have, offset, state):
            writer.u32(tl.STORAGE_UPDATE_INIT).bytes_(have).u32(offset)
            _pack_state(writer, state)
        case UpdateHavePieces(pieces):
            writer.u32(tl.STORAGE_UPDATE_HAVE_PIECES).u32(len(pieces))
            for piece in pieces:
                writer.u32(piece)
        case UpdateState(state):
            _pack_state(writer.u32(tl.STORAGE_UPDATE_STATE), state)
    return writer.done()


def _read_update(reader: tl.Reader) -> Update:
    tag = reader.u32()
    if tag == tl.STORAGE_UPDATE_INIT:
        have = reader.bytes_(BLOCK_BYTES)
        return UpdateInit(have, reader.u32(), _read_state(reader))
    if tag == tl.STORAGE_UPDATE_HAVE_PIECES:
        return UpdateHavePieces(tuple(reader.u32() for _ in range(reader.count(MAX_HAVE_IDS))))
    if tag == tl.STORAGE_UPDATE_STATE:
        return UpdateState(_read_state(reader))
    raise BadPacket(f"not a storage update: {tag:08x}")


def parse_query(data: bytes) -> Query:
    """A boxed storage query without its overlay prefix. Raises BadPacket."""
    reader = tl.Reader(data)
    tag = reader.u32()
    query: Query
    if tag == tl.STORAGE_PING:
        query = Ping(reader.u64())
    elif tag == tl.STORAGE_GET_PIECE:
        query = GetPiece(reader.u32())
    elif tag == tl.STORAGE_GET_TORRENT_INFO:
        query = GetTorrentInfo()
    elif tag == tl.STORAGE_ADD_UPDATE:
        query = AddUpdate(reader.u64(), reader.u32(), _read_update(reader))
    else:
        raise BadPacket(f"not a storage query: {tag:08x}")
    reader.end()
    return query


def pack_torrent_info(boc: bytes) -> bytes:
    return tl.Writer(tl.STORAGE_TORRENT_INFO).bytes_(boc).done()


def parse_torrent_info(data: bytes) -> bytes:
    """The BoC in an answer to getTorrentInfo; empty while the peer does not have it (C++). Raises BadPacket."""
    reader = tl.Reader(data)
    reader.expect(tl.STORAGE_TORRENT_INFO)
    boc = reader.bytes_(MAX_INFO)
    reader.end()
    return boc


def pack_piece(proof: bytes, data: bytes) -> bytes:
    return tl.Writer(tl.STORAGE_PIECE).bytes_(proof).bytes_(data).done()


def parse_piece(data: bytes) -> tuple[bytes, bytes]:
    """(proof BoC, piece bytes) of an answer to getPiece. Raises BadPacket."""
    reader = tl.Reader(data)
    reader.expect(tl.STORAGE_PIECE)
    proof = reader.bytes_(MAX_PROOF)
    piece = reader.bytes_(MAX_PIECE)
    reader.end()
    return proof, piece


def parse_pong(data: bytes) -> None:
    """Raises BadPacket unless this is storage.pong."""
    if data != PONG:
        raise BadPacket("not a storage.pong")


def parse_ok(data: bytes) -> None:
    """Raises BadPacket unless this is storage.ok."""
    if data != OK:
        raise BadPacket("not a storage.ok")


def init_block(have: int, start: int, pieces: int, state: State) -> UpdateInit:
    """The block of the have-set that begins with piece `start`, as the Go daemon demands it (reference 5.5): `start` a
    multiple of 48000, size exactly min(6000, ceil(pieces/8) - start/8), unused trailing bits zero."""
    count = min(BLOCK_PIECES, pieces - start)
    bits = have >> start & ((1 << count) - 1)
    return UpdateInit(bits.to_bytes((count + 7) // 8, "little"), start, state)
