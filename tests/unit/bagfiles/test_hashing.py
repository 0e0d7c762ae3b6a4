"""Hashing in threads gives what plain hashing gives; an interrupted one goes on; nothing of another input is used."""

from __future__ import annotations

import errno
import os
import random
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonfs.bagfiles import create, create_bag, hash_run, hashing, stored
from tonfs.bagfiles.hash_run import Job, Unreadable
from tonfs.bagfiles.hashing import HashingProcess, Notes, StreamHasher
from tonfs.bagfiles.store import BagStore
from tonfs.errors import NoSpace, Refused, Stale


def plain(root: Path, header: bytes, names: tuple[bytes, ...], piece_size: int) -> list[bytes]:
    stream = header + b"".join((root / name.decode()).read_bytes() for name in names)
    return [sha256(stream[at : at + piece_size]).digest() for at in range(0, len(stream), piece_size)]


@pytest.fixture(autouse=True, params=["threads", "processes"])
def many_small_runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "processes":
        monkeypatch.setattr(hashing, "WORTH_PROCESSES", 0)
        monkeypatch.setattr(hashing, "MANY_IN_A_RUN", 0)
    monkeypatch.setattr(hashing, "RUN_BYTES", 3 * 4096)
    monkeypatch.setattr(hash_run, "CHUNK", 1000)
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
    BagStore(tmp_path).keep(created)
    assert list((tmp_path / "making").iterdir()) == []


def test_a_bag_that_could_not_be_kept_is_not_hashed_again(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = BagStore(tmp_path / "store")
    created = create_bag(tree, piece_size=4096, notes=store.making)
    with monkeypatch.context() as patch:
        patch.setattr(stored, "write_atomically", full)
        with pytest.raises(NoSpace):
            store.keep(created)
    pieces = counted(monkeypatch)
    assert store.keep(create_bag(tree, piece_size=4096, notes=store.making)).exists()
    assert pieces == []
    assert list(store.making.iterdir()) == []


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
    notes.close()
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


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/python", "/bin/echo"])
def test_processes_that_do_not_work_cost_only_their_help(
    tree: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    created = create_bag(tree, piece_size=4096)
    assert created.hashes == plain(tree, created.header.to_bytes(), created.header.names, 4096)


def test_a_process_hashes_and_says_what_is_wrong(tree: Path) -> None:
    places = [os.fsencode(tree / name) for name in ("0", "1")]
    times = [os.stat(place).st_mtime_ns for place in places]
    child = HashingProcess()
    try:
        size = 7 + 50_001 - 1000 + 50_001
        job = (4096, size, b"front..", 1000, places, [50_001, 50_001], times)
        whole = b"front.." + (tree / "0").read_bytes()[1000:] + (tree / "1").read_bytes()
        assert child.hashes(job) == [sha256(whole[at : at + 4096]).digest() for at in range(0, size, 4096)]
        with pytest.raises(Unreadable) as told:
            child.hashes((*job[:6], [times[0], times[1] + 1]))
        assert (told.value.number, told.value.reason) == (1, "")
        with pytest.raises(Unreadable, match="No such file"):
            child.hashes((*job[:4], [b"/nowhere/file", places[1]], *job[5:]))
        assert child.hashes(job) is not None  # it goes on after an error
    finally:
        child.stop()
    assert child.hashes(job) is None


def test_many_small_files_are_hashed_by_processes_and_none_is_left(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "WORTH_PROCESSES", 4)
    monkeypatch.setattr(hashing, "MANY_IN_A_RUN", 1)
    answered = threading.Event()
    made: list[HashingProcess] = []

    class Watched(HashingProcess):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

        def hashes(self, job: Job) -> list[bytes] | None:
            found = super().hashes(job)
            if found:
                answered.set()
            return found

    def waits(job: Job) -> Iterator[bytes]:
        answered.wait()  # the thread that hashes by itself does not finish before a process did
        return hash_run.piece_hashes(job)

    monkeypatch.setattr(hashing, "HashingProcess", Watched)
    monkeypatch.setattr(hashing, "piece_hashes", waits)
    created = create_bag(tree, piece_size=4096)
    assert created.hashes == plain(tree, created.header.to_bytes(), created.header.names, 4096)
    assert made
    assert all(one._process is None for one in made)


def test_few_files_or_large_ones_start_no_process(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> HashingProcess:
        raise AssertionError("a process was started")

    monkeypatch.setattr(hashing, "HashingProcess", none)
    for fewest, in_a_run in ((5, 1), (1, 5)):
        monkeypatch.setattr(hashing, "WORTH_PROCESSES", fewest)
        monkeypatch.setattr(hashing, "MANY_IN_A_RUN", in_a_run)
        create_bag(tree, piece_size=4096)
