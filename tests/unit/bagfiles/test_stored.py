"""A bag on disk: downloads land in place, survive crashes, and never leave their folder."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from tonfs.bag import BagHeader, PieceTree, TorrentInfo
from tonfs.bagfiles import CreatedBag, StoredBag, create_bag, known_pieces
from tonfs.bagfiles.create import describe
from tonfs.errors import BadBag, BadPiece, Damaged, NoSpace, NotFound, Refused, Stale, UsageError
from tonfs.ids import BagId

FILES = {"a.bin": 10_000, "sub/b.bin": 5_000, "sub/deep/c": 1, "empty": 0, "z": 3_000}


@pytest.fixture
def source(tmp_path: Path) -> CreatedBag:
    root = tmp_path / "source" / "photos"
    for name, size in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    return create_bag(root, piece_size=4096)


@pytest.fixture
def seed(source: CreatedBag, tmp_path: Path) -> StoredBag:
    return StoredBag.create(tmp_path / "seed", source)


def download(seed: StoredBag, directory: Path, pieces: list[int] | None = None) -> StoredBag:
    assert seed.info is not None
    copy = StoredBag.prepare(directory, seed.bag_id)
    copy.set_info(seed.info.to_boc())
    for index in pieces if pieces is not None else range(seed.info.pieces):
        copy.write_piece(index, seed.read_piece(index), seed.proof(index))
    return copy


def crafted(header: BagHeader, data: bytes, piece_size: int = 4096) -> tuple[TorrentInfo, list[bytes], PieceTree]:
    stream = header.to_bytes() + data
    pieces = [stream[i : i + piece_size] for i in range(0, len(stream), piece_size)]
    hashes = [sha256(piece).digest() for piece in pieces]
    tree = PieceTree(hashes)
    return describe(header, tree, piece_size), pieces, tree


def test_a_download_restores_every_file_with_the_empty_one(seed: StoredBag, source: CreatedBag, tmp_path: Path) -> None:
    copy = download(seed, tmp_path / "copy")
    assert copy.complete
    for name, size in FILES.items():
        path = tmp_path / "copy" / "files" / "photos" / name
        assert path.read_bytes() == (tmp_path / "source" / "photos" / name).read_bytes()
        assert path.stat().st_size == size
    assert copy.verify() == []
    assert not (tmp_path / "copy" / "header.part").exists()


def test_a_folder_name_without_a_slash_is_a_folder_all_the_same(tmp_path: Path) -> None:
    info, pieces, tree = crafted(BagHeader(b"photos", (b"f",), (3,)), b"abc")
    stored = StoredBag.prepare(tmp_path / "bag", info.bag_id)
    stored.set_info(info.to_boc())
    stored.write_piece(0, pieces[0], tree.proof(0))
    assert (stored.data_root / "photos" / "f").read_bytes() == b"abc"
    assert stored.header is not None
    assert (stored.header.top, BagHeader(b"", (b"f",), (3,)).top) == (b"photos/", b"f")
    assert stored.verify() == []


def test_deleted_files_come_back_and_count_as_missing(seed: StoredBag, tmp_path: Path) -> None:
    copy = download(seed, tmp_path / "copy")
    shutil.rmtree(copy.data_root)
    copy.restore_files()
    assert (copy.data_root / "photos" / "empty").exists()
    assert copy.verify([1]) == [1]
    assert copy.have(2)
    assert copy.verify()
    assert not copy.complete


def test_pieces_come_in_any_order_once_the_header_is_there(seed: StoredBag, tmp_path: Path) -> None:
    assert seed.info is not None
    order = [0, *reversed(range(1, seed.info.pieces))]
    assert download(seed, tmp_path / "copy", order).complete


def test_a_later_piece_must_wait_for_the_header(seed: StoredBag, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="header"):
        download(seed, tmp_path / "copy", [1])


def test_a_header_of_several_pieces_is_collected_in_any_order(tmp_path: Path) -> None:
    names = tuple(b"name-%060d" % i for i in range(200))
    header = BagHeader(b"lots/", names, (7,) * 200)
    info, pieces, tree = crafted(header, os.urandom(1400))
    assert info.header_pieces > 3
    copy = StoredBag.prepare(tmp_path / "copy", info.bag_id)
    copy.set_info(info.to_boc())
    for index in reversed(range(info.header_pieces)):
        assert copy.header is None
        copy.write_piece(index, pieces[index], tree.proof(index))
        assert copy.read_piece(index) == pieces[index]
    assert copy.header == header
    for index in range(info.header_pieces):
        assert copy.read_piece(index) == pieces[index]
    copy.drop_data()
    kept = [index for index in range(info.pieces) if copy.have(index)]
    assert kept == list(range(info.header_size // info.piece_size))
    assert [copy.read_piece(index) for index in kept] == [pieces[index] for index in kept]


def test_the_same_piece_twice_is_fine_and_wrong_bytes_change_nothing(seed: StoredBag, tmp_path: Path) -> None:
    copy = download(seed, tmp_path / "copy", [0, 1])
    copy.write_piece(1, seed.read_piece(1), seed.proof(1))
    assert copy.have_count == 2
    with pytest.raises(BadPiece):
        copy.write_piece(2, bytes(4096), seed.proof(2))
    with pytest.raises(BadPiece):
        copy.write_piece(2, seed.read_piece(2), seed.proof(1))
    assert not copy.have(2)
    assert copy.have_bitmap() == b"\x03"


def test_the_bitmap_is_least_significant_bit_first(seed: StoredBag, tmp_path: Path) -> None:
    assert seed.have_bitmap() == b"\x1f"
    assert download(seed, tmp_path / "copy", [0, 4]).have_bitmap() == b"\x11"


def test_a_bag_that_claims_millions_of_pieces_takes_no_room_for_their_hashes(tmp_path: Path) -> None:
    info = TorrentInfo(1 << 17, 32_000_000 << 17, bytes(32), 100, bytes(32))
    stored = StoredBag.prepare(tmp_path / "bag", info.bag_id)
    stored.set_info(info.to_boc())
    sizes = {path.name: path.stat() for path in (tmp_path / "bag").iterdir()}
    assert sizes["tree.bin"].st_size == 64 << 25
    assert sum(512 * one.st_blocks for one in sizes.values()) < 5 << 20
    assert list(stored.here()) == []
    with pytest.raises(BadPiece, match="not known"):
        stored.proof(31_999_999)


def test_a_disk_that_is_full_for_a_hash_leaves_the_piece_missing(
    seed: StoredBag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = download(seed, tmp_path / "copy", [0])
    written: list[int] = []

    def full(fd: int, data: bytes, offset: int) -> None:
        written.append(offset)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(known_pieces, "write_all", full)
        with pytest.raises(NoSpace):
            copy.write_piece(4, seed.read_piece(4), seed.proof(4))
    assert list(copy.here()) == [0]
    copy.write_piece(4, seed.read_piece(4), seed.proof(4))
    assert copy.proof(4) == seed.proof(4)
    monkeypatch.setattr(known_pieces, "write_all", lambda *_: pytest.fail("all hashes above piece 1 are known by now"))
    copy.write_piece(1, seed.read_piece(1), seed.proof(1))


def test_a_file_that_has_another_name_in_the_bag_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "a\\b").write_bytes(b"1")
    created = create_bag(tmp_path / "dir", raw=True)
    with pytest.raises(UsageError, match="is called 'a/b' in the bag"):
        StoredBag.keep(tmp_path / "bag", created)
    assert not (tmp_path / "bag").exists()


def test_a_reopened_download_goes_on_where_it_was(seed: StoredBag, tmp_path: Path) -> None:
    download(seed, tmp_path / "copy", [0, 2]).close()
    again = StoredBag.open(tmp_path / "copy")
    assert list(again.here()) == [0, 2]
    assert again.proof(2) == seed.proof(2)
    again.close()
    assert download(seed, tmp_path / "copy").complete


def test_a_process_killed_between_pieces_loses_nothing_it_marked(seed: StoredBag, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom tonfs.bagfiles import StoredBag\n"
        "seed = StoredBag.open(Path(sys.argv[1]))\ncopy = StoredBag.prepare(Path(sys.argv[2]), seed.bag_id)\n"
        "copy.set_info(seed.info.to_boc())\n"
        "for i in range(3):\n    copy.write_piece(i, seed.read_piece(i), seed.proof(i))\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(seed.directory), str(tmp_path / "copy")],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGKILL)
    again = StoredBag.open(tmp_path / "copy")
    assert again.have_count == 3
    assert again.verify() == []


def test_a_crash_between_the_last_header_piece_and_its_unpacking_heals(seed: StoredBag, tmp_path: Path) -> None:
    """What a kill right after the bit was set leaves: header.part complete, no header.bin, no files."""
    assert seed.info is not None
    piece = seed.read_piece(0)
    copy = download(seed, tmp_path / "copy", [0])
    copy.close()
    (tmp_path / "copy" / "header.bin").unlink()
    (tmp_path / "copy" / "header.part").write_bytes(piece)
    again = StoredBag.open(tmp_path / "copy")
    assert again.header == seed.header
    assert again.read_piece(0) == piece


def test_lost_header_bytes_are_fetched_again(seed: StoredBag, tmp_path: Path) -> None:
    copy = download(seed, tmp_path / "copy", [0])
    copy.close()
    (tmp_path / "copy" / "header.bin").unlink()
    again = StoredBag.open(tmp_path / "copy")
    assert again.header is None
    assert not again.have(0)
    again.write_piece(0, seed.read_piece(0), seed.proof(0))
    assert again.header == seed.header


def test_bytes_changed_on_disk_are_never_served(seed: StoredBag, tmp_path: Path) -> None:
    copy = download(seed, tmp_path / "copy")
    with open(tmp_path / "copy" / "files" / "photos" / "a.bin", "r+b") as stream:
        stream.seek(6000)
        stream.write(b"changed!")
    assert copy.verify() == [1]
    assert not copy.have(1)
    with pytest.raises(NotFound):
        copy.read_piece(1)
    copy.write_piece(1, seed.read_piece(1), seed.proof(1))
    assert copy.complete


def test_a_source_file_that_was_changed_counts_as_missing(seed: StoredBag, tmp_path: Path) -> None:
    (tmp_path / "source" / "photos" / "z").write_bytes(b"")
    with pytest.raises(Damaged):
        seed.read_piece(4)
    assert not seed.complete


def test_foreign_data_is_never_written_or_deleted(seed: StoredBag, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        seed.write_piece(0, seed.read_piece(0), seed.proof(0))
    with pytest.raises(Refused):
        seed.drop_data()
    seed.remove()
    assert not (tmp_path / "seed").exists()
    assert (tmp_path / "source" / "photos" / "a.bin").exists()


def test_dropped_data_leaves_proofs_and_comes_back(seed: StoredBag, tmp_path: Path) -> None:
    copy = download(seed, tmp_path / "copy")
    copy.drop_data()
    assert copy.have_count == 0
    assert not (tmp_path / "copy" / "files" / "photos").exists()
    assert copy.header == seed.header
    assert [copy.proof(index) for index in range(5)] == [seed.proof(index) for index in range(5)]
    copy.close()
    assert download(seed, tmp_path / "copy").complete
    assert (tmp_path / "copy" / "files" / "photos" / "empty").exists()


def test_existing_files_of_the_user_are_not_overwritten(seed: StoredBag, tmp_path: Path) -> None:
    (tmp_path / "mine" / "photos").mkdir(parents=True)
    (tmp_path / "mine" / "photos" / "z").write_text("keep me")
    copy = StoredBag.prepare(tmp_path / "copy", seed.bag_id, tmp_path / "mine")
    assert seed.info is not None
    copy.set_info(seed.info.to_boc())
    with pytest.raises(Refused, match="exists"):
        copy.write_piece(0, seed.read_piece(0), seed.proof(0))
    assert (tmp_path / "mine" / "photos" / "z").read_text() == "keep me"
    copy.close()
    assert StoredBag.open(tmp_path / "copy").header is None


@pytest.mark.parametrize("trap", ["photos", "photos/sub", "photos/sub/b.bin"])
def test_links_on_the_way_are_refused(seed: StoredBag, tmp_path: Path, trap: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b.bin").write_text("keep me")
    place = tmp_path / "copy" / "files" / trap
    copy = download(seed, tmp_path / "copy", [0])
    subprocess.run(["rm", "-rf", str(place)], check=True)
    place.symlink_to(outside / "b.bin" if trap.endswith("b.bin") else outside)
    with pytest.raises(BadBag):
        copy.write_piece(3, seed.read_piece(3), seed.proof(3))
    assert (outside / "b.bin").read_text() == "keep me"
    assert os.listdir(outside) == ["b.bin"]
    assert not copy.have(3)


@pytest.mark.parametrize("name", [b"../evil", b"/evil", b"a/../../evil"])
def test_a_bag_with_a_climbing_name_is_broken_for_ever(name: bytes, tmp_path: Path) -> None:
    info, pieces, tree = crafted(BagHeader(b"dir/", (name,), (10,)), bytes(10))
    copy = StoredBag.prepare(tmp_path / "copy", info.bag_id)
    copy.set_info(info.to_boc())
    with pytest.raises(BadBag):
        copy.write_piece(0, pieces[0], tree.proof(0))
    assert copy.broken
    copy.close()
    again = StoredBag.open(tmp_path / "copy")
    assert again.broken
    assert again.header is None
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "copy" / "evil").exists()


def test_pieces_for_finds_the_pieces_of_a_stretch(seed: StoredBag) -> None:
    assert seed.header is not None
    start = seed.header.size
    assert seed.pieces_for(b"a.bin", 0, 1) == range(1)
    assert seed.pieces_for(b"a.bin", 4096 - start, 1) == range(1, 2)
    assert seed.pieces_for(b"a.bin", 0, 1 << 40) == range((start + 9_999) // 4096 + 1)
    assert list(seed.pieces_for(b"a.bin", 10_000, 5)) == []
    assert list(seed.pieces_for(b"empty", 0, 5)) == []
    with pytest.raises(NotFound):
        seed.pieces_for(b"nope", 0, 1)


def test_info_of_another_bag_and_another_bag_in_the_directory_are_refused(seed: StoredBag, tmp_path: Path) -> None:
    assert seed.info is not None
    other = StoredBag.prepare(tmp_path / "other", BagId(bytes(32)))
    with pytest.raises(BadBag):
        other.set_info(seed.info.to_boc())
    with pytest.raises(Refused):
        StoredBag.prepare(tmp_path / "other", seed.bag_id)
    with pytest.raises(UsageError):
        other.proof(0)


def test_damaged_state_files_are_named(seed: StoredBag, tmp_path: Path) -> None:
    seed.close()
    for name, body in (
        ("have.bin", b"\x01\x02\x03"),
        ("tree.bin", b""),
        ("info.boc", b"x"),
        ("header.bin", b"x"),
        ("bag.json", b"[]"),
    ):
        good = (tmp_path / "seed" / name).read_bytes()
        (tmp_path / "seed" / name).write_bytes(body)
        with pytest.raises(Damaged, match=name.replace(".", r"\.")):
            StoredBag.open(tmp_path / "seed")
        (tmp_path / "seed" / name).write_bytes(good)
    (tmp_path / "seed" / "tree.bin").unlink()
    with pytest.raises(Damaged):
        StoredBag.open(tmp_path / "seed")
    with pytest.raises(NotFound):
        StoredBag.open(tmp_path / "nothing")


def test_a_bag_of_exactly_full_pieces_can_be_downloaded(tmp_path: Path) -> None:
    header = BagHeader(b"", (b"full",), (8192 - 52,))
    assert header.size == 52
    info, pieces, tree = crafted(header, os.urandom(8192 - 52))
    copy = StoredBag.prepare(tmp_path / "copy", info.bag_id)
    copy.set_info(info.to_boc())
    for index, piece in enumerate(pieces):
        copy.write_piece(index, piece, tree.proof(index))
    assert copy.complete
    copy.sync()


def test_a_file_that_changes_while_it_is_hashed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(bytes(3 << 20))

    def grow(done: int, total: int) -> None:
        with open(path, "ab") as stream:
            stream.write(b"x")

    with pytest.raises(Stale):
        create_bag(path, progress=grow)


def test_links_to_nothing_missing_paths_and_pipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        create_bag(tmp_path / "nothing")
    folder = tmp_path / "folder"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    with pytest.raises(Refused):
        create_bag(folder)
    (folder / "pipe").unlink()
    (folder / "dangling").symlink_to("nowhere")
    with pytest.raises(Refused):
        create_bag(folder)
