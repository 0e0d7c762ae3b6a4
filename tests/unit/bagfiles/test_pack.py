"""Packs: ranges in, one bag out, and the manifest tells where everything lies."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonfs.bagfiles import PackManifest, write_pack
from tonfs.bagfiles.pack import PackEntry, PackInput, PackRange, clean_drafts
from tonfs.errors import BadData, NoSpace, Stale
from tonfs.ids import Inode

CREATED = "2026-01-02T03:04:05Z"


def an_input(tmp_path: Path, inode: int, data: bytes, ranges: tuple[tuple[int, int], ...] | None = None) -> PackInput:
    path = tmp_path / f"content-{inode}"
    path.write_bytes(data)
    whole = ((0, len(data)),) if ranges is None else ranges
    sources = tuple((path, offset) for offset, _ in whole)
    return PackInput(Inode(inode), 3, f"dir/file-{inode}", 0o100644, 1_700_000_000_123, len(data), whole, sources)


def test_a_pack_holds_every_range_where_its_extents_say(tmp_path: Path) -> None:
    big = os.urandom(300_000)
    inputs = [an_input(tmp_path, 7, b"seven"), an_input(tmp_path, 8, big, ((0, 1000), (150_000, 140_000)))]
    written = write_pack(tmp_path / "packs", inputs, created=CREATED)
    bag = written.bag
    assert bag.directory == tmp_path / "packs" / bag.bag_id.hex()
    assert bag.complete
    assert bag.verify() == []
    assert not bag.foreign
    data = (bag.directory / "files" / "pack" / "data").read_bytes()
    contents = {7: b"seven", 8: big}
    for extent in written.extents:
        for offset, length, at in extent.ranges:
            assert data[at : at + length] == contents[extent.inode][offset : offset + length]
    manifest = PackManifest.parse((bag.directory / "files" / "pack" / "manifest.json").read_bytes())
    assert manifest == written.manifest
    assert [(e.inode, e.version, e.path) for e in manifest.entries] == [(7, 3, "dir/file-7"), (8, 3, "dir/file-8")]
    assert bag.header is not None
    assert (bag.header.dir_name, bag.header.names) == (b"pack/", (b"data", b"manifest.json"))


def test_the_stream_never_fills_its_last_piece_exactly(tmp_path: Path) -> None:
    """Sizes around a multiple of the piece size: one of them needs the padding."""
    first = write_pack(tmp_path / "packs", [an_input(tmp_path, 1, bytes(3_000))], created=CREATED, piece_size=4096)
    assert first.bag.info is not None
    exact = 3_000 + 4096 - first.bag.info.file_size
    padded = 0
    for size in range(exact - 2, exact + 3):
        written = write_pack(tmp_path / "packs", [an_input(tmp_path, 1, bytes(size))], created=CREATED, piece_size=4096)
        assert written.bag.info is not None
        assert written.bag.info.file_size % 4096
        body = (written.bag.directory / "files" / "pack" / "manifest.json").read_bytes()
        assert PackManifest.parse(body) == written.manifest
        padded += body.endswith(b" ")
        assert written.bag.verify() == []
        written.bag.close()
    assert padded == 1


def test_a_pack_comes_back_after_its_data_was_dropped(tmp_path: Path) -> None:
    bag = write_pack(tmp_path / "packs", [an_input(tmp_path, 1, os.urandom(200_000))], created=CREATED).bag
    assert bag.info is not None
    pieces = [(bag.read_piece(i), bag.proof(i)) for i in range(bag.info.pieces)]
    bag.drop_data()
    assert not (bag.directory / "files" / "pack").exists()
    for index, (data, proof) in enumerate(pieces):
        bag.write_piece(index, data, proof)
    assert bag.complete


def test_a_file_that_vanishes_is_left_out_and_named(tmp_path: Path) -> None:
    good, short, gone = (an_input(tmp_path, n, bytes([n]) * 5000) for n in (1, 2, 3))
    short.sources[0][0].write_bytes(b"short now")
    gone.sources[0][0].unlink()
    written = write_pack(tmp_path / "packs", [short, good, gone], created=CREATED)
    assert written.dropped == (2, 3)
    assert [extent.inode for extent in written.extents] == [1]
    assert written.extents[0].ranges == ((0, 5000, 9),)
    with pytest.raises(Stale):
        write_pack(tmp_path / "packs", [gone], created=CREATED)
    assert not list((tmp_path / "packs").glob(".draft-*"))


def test_the_same_pack_twice_is_the_same_bag(tmp_path: Path) -> None:
    inputs = [an_input(tmp_path, 1, b"x" * 100)]
    first, second = (write_pack(tmp_path / "packs", inputs, created=CREATED) for _ in range(2))
    assert first.bag.bag_id == second.bag.bag_id
    assert second.bag.complete


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    def full(path: Path, offset: int, length: int) -> Iterator[bytes]:
        yield b"x" * length

    def broken(done: int, total: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(NoSpace):
        write_pack(tmp_path / "packs", [an_input(tmp_path, 1, b"x")], created=CREATED, reader=full, progress=broken)
    assert os.listdir(tmp_path / "packs") == []


def test_drafts_of_a_crash_are_cleaned_up(tmp_path: Path) -> None:
    (tmp_path / ".draft-1" / "files").mkdir(parents=True)
    assert clean_drafts(tmp_path) == 1
    assert os.listdir(tmp_path) == []


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    entry = PackEntry(Inode(1), 1, os.fsdecode(b"caf\xe9"), 0o644, -5, 0, (PackRange(0, 1, 0, bytes(32)),))
    manifest = PackManifest(CREATED, 1, (entry,))
    again = PackManifest.parse(manifest.to_bytes())
    assert again == manifest
    assert os.fsencode(again.entries[0].path) == b"caf\xe9"


GOOD = PackManifest(
    CREATED, 10, (PackEntry(Inode(1), 1, "a", 0o644, 5, 10, (PackRange(0, 10, 0, bytes(32)),)),)
).to_bytes()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ranges", [[0, 11, 0]]),
        ("ranges", [[0, 5, 6]]),
        ("ranges", [[0, -1, 0]]),
        ("ranges", [[0, 1]]),
        ("ranges", [[0, 1, 0], [1, 1, 1]]),
        ("ranges", "x"),
        ("ranges", [[0, 1.5, 0]]),
        ("ranges", [[True, 1, 0]]),
        ("sha256", ["00"]),
        ("sha256", [5]),
        ("inode", -1),
        ("inode", "1"),
        ("version", 1 << 63),
        ("path", 5),
        ("path", "x" * 70_000),
        ("mtime_ns", 1 << 70),
        ("mode", None),
    ],
)
def test_entries_that_lie_are_refused(key: str, value: object) -> None:
    table = json.loads(GOOD)
    table["entries"][0][key] = value
    with pytest.raises(BadData):
        PackManifest.parse(json.dumps(table).encode())


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"\xff", b"5", b"[" * 100_000, GOOD.replace(b'"version": 1', b'"version": 2')]
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(BadData):
        PackManifest.parse(data)


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_manifest_raises_only_baddata(data: st.DataObject) -> None:
    body = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadData):
        PackManifest.parse(bytes(body))


def test_a_pack_has_its_name_only_after_its_bytes_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[tuple[int, int]] = set()
    named: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note(fd: int) -> None:
        fsync(fd)
        synced.add((os.fstat(fd).st_ino, os.fstat(fd).st_size))

    def check(old: str | Path, new: str | Path) -> None:
        if Path(new).parent == tmp_path / "packs":
            for path in (p for p in Path(old).rglob("*") if p.name in ("data", "manifest.json")):
                assert (path.stat().st_ino, path.stat().st_size) in synced, path
                named.append(path.name)
        rename(old, new)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "rename", check)
    (tmp_path / "packs").mkdir()
    write_pack(tmp_path / "packs", [an_input(tmp_path, 7, b"x" * 300_000)], created=CREATED).bag.close()
    assert sorted(named) == ["data", "manifest.json"]
