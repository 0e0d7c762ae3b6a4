"""Hashing in threads gives what plain hashing gives; an interrupted one goes on; nothing of another input is used."""

from __future__ import annotations

import random
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonfs.bagfiles import create, create_bag, hashing
from tonfs.bagfiles.hashing import Notes, StreamHasher
from tonfs.errors import Refused, Stale


def plain(root: Path, header: bytes, names: tuple[bytes, ...], piece_size: int) -> list[bytes]:
    stream = header + b"".join((root / name.decode()).read_bytes() for name in names)
    return [sha256(stream[at : at + piece_size]).digest() for at in range(0, len(stream), piece_size)]


@pytest.fixture(autouse=True)
def many_small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "RUN_BYTES", 3 * 4096)
    monkeypatch.setattr(hashing, "CHUNK", 1000)
    monkeypatch.setattr(hashing, "workers", lambda: 3)
    monkeypatch.setattr(create, "WORTH_NOTING", 0)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 30_000), min_size=1, max_size=12), st.sampled_from([4096, 5000, 16384]), st.integers(0))
def test_threads_and_files_of_all_sizes_give_the_plain_hashes(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], piece_size: int, seed: int
) -> None:
    root = tmp_path_factory.mktemp("tree") / "bag"
    root.mkdir()
    rng = random.Random(seed)
    for number, size in enumerate(sizes):
        (root / f"{number:03}").write_bytes(rng.randbytes(size))
    created = create_bag(root, piece_size=piece_size, raw=True)
    assert created.hashes == plain(root, created.header.to_bytes(), created.header.names, piece_size)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "bag"
    root.mkdir()
    for number in range(4):
        (root / f"{number}").write_bytes(random.Random(number).randbytes(50_001))
    return root


class Interrupted(Exception):
    pass


def interrupt(after: int):
    def report(done: int, _total: int) -> None:
        if done >= after:
            raise Interrupted

    return report


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pieces that are really hashed from here on."""
    pieces: list[int] = []
    real = StreamHasher._hash_run

    def hash_run(self: StreamHasher, first: int, end: int) -> list[bytes]:
        pieces.extend(range(first, end))
        return real(self, first, end)

    monkeypatch.setattr(StreamHasher, "_hash_run", hash_run)
    return pieces


def test_an_interrupted_making_goes_on_where_it_was(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted):
        create_bag(tree, piece_size=4096, notes=tmp_path / "making", progress=interrupt(100_000))
    assert len(list((tmp_path / "making").iterdir())) == 1
    pieces = counted(monkeypatch)
    created = create_bag(tree, piece_size=4096, notes=tmp_path / "making")
    assert 0 < len(pieces) < created.info.pieces - 15
    assert created.hashes == plain(tree, created.header.to_bytes(), created.header.names, 4096)
    assert list((tmp_path / "making").iterdir()) == []


def test_notes_of_a_tree_that_changed_since_are_not_used(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted):
        create_bag(tree, piece_size=4096, notes=tmp_path / "making", progress=interrupt(100_000))
    (tree / "0").write_bytes(bytes(50_001))
    pieces = counted(monkeypatch)
    created = create_bag(tree, piece_size=4096, notes=tmp_path / "making")
    assert len(pieces) == created.info.pieces
    assert created.hashes == plain(tree, created.header.to_bytes(), created.header.names, 4096)


def test_notes_that_are_cut_or_foreign_are_begun_anew(tmp_path: Path) -> None:
    mark = sha256(b"input").digest()
    notes = Notes(tmp_path, mark, 5)
    notes.keep(1, [b"\1" * 32, b"\2" * 32])
    notes.close(finished=False)
    path = tmp_path / f"{mark.hex()}.hashes"
    assert Notes(tmp_path, mark, 5).known(5) == [b"", b"\1" * 32, b"\2" * 32, b"", b""]
    path.write_bytes(path.read_bytes()[: 48 + 64 + 7])
    assert Notes(tmp_path, mark, 5).known(5)[:2] == [b"", b"\1" * 32]
    path.write_bytes(b"x" * 500)
    assert Notes(tmp_path, mark, 5).known(5) == [b""] * 5


def test_a_file_that_changes_under_the_workers_is_told(tree: Path) -> None:
    def touch(done: int, _total: int) -> None:
        if done < 50_000:
            (tree / "3").write_bytes(b"shorter")

    with pytest.raises(Stale):
        create_bag(tree, piece_size=4096, progress=touch)


def test_a_file_that_vanishes_is_told(tree: Path) -> None:
    def unlink(done: int, _total: int) -> None:
        (tree / "3").unlink(missing_ok=True)

    with pytest.raises(Refused):
        create_bag(tree, piece_size=4096, progress=unlink)
