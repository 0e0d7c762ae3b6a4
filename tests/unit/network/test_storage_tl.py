from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonfs.errors import BadPacket
from tonfs.ids import BagId
from tonfs.network import overlay, storage_tl, tl
from tonfs.network.storage_tl import AddUpdate, Ping, State, UpdateHavePieces, UpdateInit, UpdateState

BAG_A = BagId(bytes.fromhex("d191c07445c59f22b1525008897f07398f341f3a7cf70ad3e2fd9ba4c8998571"))

states = st.builds(State, st.booleans(), st.booleans())
updates = st.one_of(
    st.builds(UpdateInit, st.binary(max_size=6000), st.integers(0, 2**32 - 1), states),
    st.builds(UpdateHavePieces, st.lists(st.integers(0, 2**32 - 1), max_size=1500).map(tuple)),
    st.builds(UpdateState, states),
)


def test_the_ping_of_vector_a():
    data = overlay.wrap(overlay.overlay_id(BAG_A), storage_tl.pack_ping(0x0102030405060708))
    assert data.hex() == (
        "4384fdcc" + "4bdfd936fae332e385fc9f69b6bef417dba732732ee7393bb9494fe850bf515e" + "11f2f3440807060504030201"
    )
    assert overlay.unwrap(data)[0] == overlay.overlay_id(BAG_A)
    assert storage_tl.parse_query(overlay.unwrap(data)[1]) == Ping(0x0102030405060708)


def test_wire_ids_are_those_of_the_reference():
    assert storage_tl.PONG.hex() == "a5c6f56c"
    assert storage_tl.OK.hex() == "051c2bc3"
    assert storage_tl.GET_TORRENT_INFO.hex() == "2a96c491"
    assert storage_tl.pack_get_piece(7).hex() == "60e67a80" + "07000000"
    assert storage_tl.pack_piece(b"", b"").hex() == "0dfab480" + "00000000" + "00000000"
    assert storage_tl.pack_torrent_info(b"").hex() == "eed0ce14" + "00000000"
    state = "8a701333" + "b5757299" + "379779bc"
    init = storage_tl.pack_add_update(1, 2, UpdateInit(b"\x03", 0, State(True, False)))
    assert init.hex() == "d235314d" + "0100000000000000" + "02000000" + "b6e033ce" + "01030000" + "00000000" + state
    have = storage_tl.pack_add_update(1, 2, UpdateHavePieces((5,)))
    assert have.hex() == "d235314d" + "0100000000000000" + "02000000" + "4920f83b" + "01000000" + "05000000"
    told = storage_tl.pack_add_update(1, 2, UpdateState(State(True, False)))
    assert told.hex() == "d235314d" + "0100000000000000" + "02000000" + "b534b005" + state


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), updates)
def test_updates_survive_the_wire(sid, seqno, update):
    assert storage_tl.parse_query(storage_tl.pack_add_update(sid, seqno, update)) == AddUpdate(sid, seqno, update)


@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_pieces_survive_the_wire(proof, data):
    assert storage_tl.parse_piece(storage_tl.pack_piece(proof, data)) == (proof, data)


def test_trailing_bytes_are_refused_everywhere():
    with pytest.raises(BadPacket):
        storage_tl.parse_query(storage_tl.pack_ping(1) + b"\0\0\0\0")
    with pytest.raises(BadPacket):
        storage_tl.parse_piece(storage_tl.pack_piece(b"p", b"d") + b"\0")
    with pytest.raises(BadPacket):
        storage_tl.parse_torrent_info(storage_tl.pack_torrent_info(b"x") + b"\0")
    with pytest.raises(BadPacket):
        storage_tl.parse_ok(storage_tl.OK + b"\0")
    with pytest.raises(BadPacket):
        storage_tl.parse_pong(storage_tl.OK)


def test_limits_hold_for_lengths_that_lie():
    too_many = tl.Writer(tl.STORAGE_ADD_UPDATE).u64(1).u32(1).u32(tl.STORAGE_UPDATE_HAVE_PIECES).u32(2**31).done()
    too_long = tl.Writer(tl.STORAGE_ADD_UPDATE).u64(1).u32(1).u32(tl.STORAGE_UPDATE_INIT).bytes_(bytes(6001)).done()
    for data in (too_many, too_long):
        with pytest.raises(BadPacket):
            storage_tl.parse_query(data)


@given(
    st.sampled_from([tl.STORAGE_PING, tl.STORAGE_GET_PIECE, tl.STORAGE_ADD_UPDATE, tl.STORAGE_GET_TORRENT_INFO])
    | st.integers(0, 2**32 - 1),
    st.binary(max_size=100),
    st.sampled_from([tl.STORAGE_UPDATE_INIT, tl.STORAGE_UPDATE_HAVE_PIECES, tl.STORAGE_UPDATE_STATE]),
)
def test_foreign_queries_end_in_a_query_or_in_bad_packet(tag, noise, inner):
    for body in (noise, noise[:12] + inner.to_bytes(4, "little") + noise[12:]):
        data = tag.to_bytes(4, "little") + body
        for parse in (
            storage_tl.parse_query,
            storage_tl.parse_piece,
            storage_tl.parse_torrent_info,
            overlay.unwrap,
            overlay.parse_get_random_peers,
        ):
            with contextlib.suppress(BadPacket):
                parse(data)


@given(st.integers(1, 120_000), st.data())
def test_init_blocks_have_the_sizes_that_go_demands(pieces, data):
    have = int.from_bytes(data.draw(st.binary(max_size=20)), "little")
    blocks = [storage_tl.init_block(have, start, pieces, State(True, True)) for start in range(0, pieces, 48_000)]
    total = (pieces + 7) // 8
    assert [block.offset for block in blocks] == list(range(0, 8 * total, 48_000))
    for block in blocks:
        assert len(block.have) == min(6000, total - block.offset // 8)
    joined = int.from_bytes(b"".join(block.have for block in blocks), "little")
    assert joined == have & ((1 << pieces) - 1)


def test_a_certificate_in_the_overlay_extra_is_not_for_us():
    inner = storage_tl.pack_ping(1)
    plain = tl.Writer(tl.OVERLAY_QUERY_EXTRA).int256(bytes(32)).u32(0).raw(inner).done()
    assert overlay.unwrap(plain) == (bytes(32), inner)
    with pytest.raises(BadPacket):
        overlay.unwrap(tl.Writer(tl.OVERLAY_QUERY_EXTRA).int256(bytes(32)).u32(1).raw(inner).done())
