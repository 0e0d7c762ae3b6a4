from __future__ import annotations

from binascii import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonfs.errors import BadPacket
from tonfs.network import tl

DEFINITIONS = [
    ("BOOL_TRUE", "boolTrue = Bool"),
    ("PUB_ED25519", "pub.ed25519 key:int256 = PublicKey"),
    ("ADNL_QUERY", "adnl.message.query query_id:int256 query:bytes = adnl.Message"),
    ("ADNL_PART", "adnl.message.part hash:int256 total_size:int offset:int data:bytes = adnl.Message"),
    ("RLDP_QUERY", "rldp.query query_id:int256 max_answer_size:long timeout:int data:bytes = rldp.Message"),
    (
        "RLDP2_CONFIRM",
        "rldp2.confirm transfer_id:int256 part:int max_seqno:int received_mask:int received_count:int"
        " = rldp2.MessagePart",
    ),
    ("STORAGE_GET_PIECE", "storage.getPiece piece_id:int = storage.Piece"),
]


@pytest.mark.parametrize(("name", "line"), DEFINITIONS)
def test_constructor_ids_are_the_crc_of_their_definition(name: str, line: str) -> None:
    assert getattr(tl, name) == crc32(line.encode())


def test_all_constructor_ids_differ() -> None:
    ids = [v for k, v in vars(tl).items() if k.isupper() and isinstance(v, int) and k != "MAX_BYTES"]
    assert len(ids) > 70
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 252, 253, 254, 255, 256, 70_000, (1 << 24) - 1, 1 << 24])
def test_bytes_of_every_prefix_form_come_back(size: int) -> None:
    data = bytes(size)
    packed = tl.pack_bytes(data)
    assert len(packed) % 4 == 0
    reader = tl.Reader(packed)
    assert reader.bytes_() == data
    reader.end()


def test_numbers_are_little_endian_and_wrap() -> None:
    packed = tl.Writer(tl.ADNL_NOP).u32(-1).i64(-2).u64(2**64 - 3).bool_(True).done()
    assert packed.hex() == "dadff817ffffffff" + "feffffffffffffff" + "fdffffffffffffff" + "b5757299"
    reader = tl.Reader(packed)
    reader.expect(tl.ADNL_NOP)
    assert (reader.i32(), reader.i64(), reader.u64(), reader.bool_()) == (-1, -2, 2**64 - 3, True)
    reader.end()


def test_limits_and_trailing_bytes_are_refused() -> None:
    with pytest.raises(BadPacket):
        tl.Reader(tl.pack_bytes(bytes(10))).bytes_(9)
    with pytest.raises(BadPacket):
        tl.Reader(b"\xff" + b"\xff" * 7).bytes_()
    with pytest.raises(BadPacket):
        tl.Reader(tl.Writer().u32(5).raw(bytes(16)).done()).count(10)
    with pytest.raises(BadPacket):
        tl.Reader(b"\0").end()
    with pytest.raises(BadPacket):
        tl.Reader(bytes(4)).bool_()
    with pytest.raises(BadPacket):
        tl.Reader(bytes(4)).expect(tl.ADNL_NOP)
    with pytest.raises(ValueError, match="int256"):
        tl.Writer().int256(b"short")


@given(st.binary(max_size=200), st.lists(st.sampled_from(["u32", "i64", "bytes_", "bool_", "int256", "rest"])))
def test_reader_only_ever_raises_bad_packet(data: bytes, calls: list[str]) -> None:
    reader = tl.Reader(data)
    try:
        for call in calls:
            getattr(reader, call)()
        reader.end()
    except BadPacket:
        pass
    assert 0 <= reader.pos <= len(data)
