"""TorrentInfo and header: round trips, every rule of reference protocol 1.2 and 1.6, and fuzz."""

from __future__ import annotations

import contextlib
import struct
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonfs.bag import BagHeader, TorrentInfo, to_boc
from tonfs.bag.boc import Cell
from tonfs.errors import BadBag
from tonfs.ids import BagId


def make_info(**changes: object) -> TorrentInfo:
    values: dict[str, object] = {
        "piece_size": 4096,
        "file_size": 10_000,
        "root_hash": b"r" * 32,
        "header_size": 100,
        "header_hash": b"h" * 32,
        "description": b"",
    }
    return TorrentInfo(**{**values, **changes})  # type: ignore[arg-type]


def info_for(header: bytes, data_size: int) -> TorrentInfo:
    return make_info(file_size=len(header) + data_size, header_size=len(header), header_hash=sha256(header).digest())


def parse(header: BagHeader) -> BagHeader:
    data = header.to_bytes()
    return BagHeader.parse(data, info_for(data, header.data_size))


@given(st.binary(max_size=400), st.sampled_from(["go", "cpp"]))
def test_an_info_is_read_back_with_the_same_bag_id(description: bytes, style: str) -> None:
    info = make_info(description=description, text_style=style)
    again = TorrentInfo.parse(info.to_boc(), info.bag_id)
    assert again == info
    assert again.bag_id == info.bag_id


def test_long_descriptions_differ_between_creators_and_both_are_kept_as_they_came() -> None:
    go, cpp = make_info(description=b"d" * 200), make_info(description=b"d" * 200, text_style="cpp")
    assert go.bag_id != cpp.bag_id
    for info in (go, cpp):
        assert TorrentInfo.parse(TorrentInfo.parse(info.to_boc()).to_boc()).bag_id == info.bag_id


def test_a_wrong_bag_id_is_refused() -> None:
    with pytest.raises(BadBag, match="another bag"):
        TorrentInfo.parse(make_info().to_boc(), BagId(bytes(32)))


@pytest.mark.parametrize(
    "changes",
    [
        {"piece_size": 0},
        {"piece_size": 4095},
        {"piece_size": (8 << 20) + 1},
        {"header_size": 0},
        {"header_size": 10_001},
        {"header_size": (20 << 20) + 1, "file_size": 1 << 30},
        {"file_size": 4096 * 32_000_001},
        {"file_size": (1 << 64) - 1},
        {"description": b"x" * 1025},
    ],
)
def test_impossible_numbers_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(BadBag):
        TorrentInfo.parse(make_info(**changes).to_boc())


def test_cells_behind_the_description_are_refused() -> None:
    good = make_info(description=b"x").cell()
    for cell in (
        Cell(good.data, [Cell(b"extra")]),
        Cell(good.data + b"y"),
        Cell(good.data[:-1]),
        Cell(good.data[:80]),
        Cell(good.data[:84] + b"\x11\x01x"),
        Cell(good.data[:84] + b"\x02\x01x"),
    ):
        with pytest.raises(BadBag):
            TorrentInfo.parse(to_boc(cell))


def test_pieces_are_counted_and_only_the_last_is_short() -> None:
    info = make_info(file_size=8193)
    assert [info.piece_length(i) for i in range(info.pieces)] == [4096, 4096, 1]
    with pytest.raises(IndexError):
        info.piece_length(3)


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_info_raises_only_badbag(description: bytes, where: int, value: int) -> None:
    boc = bytearray(make_info(description=description).to_boc())
    boc[where % len(boc)] = value
    with contextlib.suppress(BadBag):
        TorrentInfo.parse(bytes(boc))


# The header.


def test_a_header_is_read_back() -> None:
    header = BagHeader(b"dir/", (b"a.txt", b"b/c", b"empty"), (10, 20, 0))
    again = parse(header)
    assert again == header
    assert [(f.name, f.start - header.size, f.size) for f in again.files] == [
        (b"a.txt", 0, 10),
        (b"b/c", 10, 20),
        (b"empty", 30, 0),
    ]


@pytest.mark.parametrize(
    "names",
    [
        (b"",),
        (b"/etc/passwd",),
        (b"a/",),
        (b"a//b",),
        (b".",),
        (b"..",),
        (b"../x",),
        (b"a/../b",),
        (b"a/..",),
        (b"a/./b",),
        (b"a\0b",),
        (b"same", b"same"),
        (b"a", b"a/b"),
        (b"a/b", b"a.txt", b"a"),
        (b"x" * 256,),
        (b"/".join([b"x" * 200] * 21),),
    ],
)
def test_dangerous_names_are_refused(names: tuple[bytes, ...]) -> None:
    with pytest.raises(BadBag):
        parse(BagHeader(b"dir/", names, (1,) * len(names)))


@pytest.mark.parametrize("name", [b"...", b"..x", b"x..", b"a./b", b"a\\b", b"\xff\xfe", b" ", b"new\nline"])
def test_odd_but_legal_names_are_accepted(name: bytes) -> None:
    assert parse(BagHeader(b"", (name,), (1,))).names == (name,)


@pytest.mark.parametrize("dir_name", [b"..", b"../", b"/", b"a/../b/", b"/abs/", b"x" * 257, b"a\0/"])
def test_dangerous_folder_names_are_refused(dir_name: bytes) -> None:
    with pytest.raises(BadBag):
        parse(BagHeader(dir_name, (b"a",), (1,)))


def raw(
    *,
    magic: int = 0x9128AAB7,
    count: int = 1,
    names: bytes = b"a",
    name_bytes: int | None = None,
    data_bytes: int = 0,
    fec: int = 0xC82A1964,
    dir_name: bytes = b"",
    dir_bytes: int | None = None,
    name_ends: tuple[int, ...] = (1,),
    data_ends: tuple[int, ...] = (5,),
    tail: bytes = b"",
) -> bytes:
    head = struct.pack(
        "<IIQQII",
        magic,
        count,
        len(names) if name_bytes is None else name_bytes,
        data_bytes,
        fec,
        len(dir_name) if dir_bytes is None else dir_bytes,
    )
    ends = struct.pack(f"<{len(name_ends)}Q", *name_ends) + struct.pack(f"<{len(data_ends)}Q", *data_ends)
    return head + dir_name + ends + names + tail


def test_the_raw_form_is_right() -> None:
    data = raw()
    assert BagHeader.parse(data, info_for(data, 5)).sizes == (5,)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        raw()[:31],
        raw(magic=1),
        raw(fec=1),
        raw(data_bytes=1, tail=b"x"),
        raw(count=0, names=b"", name_ends=(), data_ends=()),
        raw(count=2),
        raw(count=0xFFFFFFFF),
        raw(name_bytes=1 << 63),
        raw(name_bytes=(1 << 64) - 1),
        raw(dir_bytes=0xFFFFFFFF),
        raw(dir_bytes=200),
        raw(tail=b"x"),
        raw(name_ends=(0,)),
        raw(name_ends=(2,)),
        raw(name_ends=((1 << 64) - 1,)),
        raw(data_ends=(4,)),
        raw(data_ends=(6,)),
        raw(data_ends=((1 << 64) - 1,)),
        raw(count=2, names=b"ab", name_ends=(1, 2), data_ends=(9, 5)),
        raw(count=2, names=b"ab", name_ends=(2, 1), data_ends=(3, 5)),
    ],
)
def test_headers_that_contradict_themselves_are_refused(data: bytes) -> None:
    with pytest.raises(BadBag):
        BagHeader.parse(data, info_for(data, 5))


def test_a_header_that_does_not_match_its_hash_or_size_is_refused() -> None:
    data = raw()
    with pytest.raises(BadBag, match="hash"):
        BagHeader.parse(data, make_info(file_size=len(data) + 5, header_size=len(data)))
    with pytest.raises(BadBag, match="bytes"):
        BagHeader.parse(data[:-1], info_for(data, 5))


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_header_raises_only_badbag(data: st.DataObject) -> None:
    body = bytearray(BagHeader(b"dir/", (b"a.txt", b"b/c", b"empty"), (10, 20, 0)).to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(1, len(body)))]
    with contextlib.suppress(BadBag):
        BagHeader.parse(bytes(body), info_for(bytes(body), 30))


def test_a_name_of_very_many_components_costs_no_quadratic_time() -> None:
    names = tuple(b"/".join([b"d"] * 2000) + str(i).encode() for i in range(2000))
    assert len(parse(BagHeader(b"", names, (0,) * len(names))).names) == 2000
