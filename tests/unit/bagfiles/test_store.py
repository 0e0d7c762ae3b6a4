"""A store of bags: what it keeps, what it refuses, and that it never deletes what belongs to the user."""

from __future__ import annotations

from pathlib import Path

import pytest

from tonfs.bagfiles import CreatedBag, StoredBag, create_bag
from tonfs.bagfiles.store import BagStore, summary
from tonfs.errors import NotFound, Refused, UsageError

PIECE = 4096


@pytest.fixture
def store(tmp_path: Path) -> BagStore:
    return BagStore(tmp_path / "store")


def made(folder: Path) -> CreatedBag:
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(b"a" * 5000)
    (folder / "b").write_bytes(b"b" * 7001)
    return create_bag(folder, piece_size=PIECE)


def downloaded(store: BagStore, created: CreatedBag, into: Path | None, pieces: int) -> Path:
    """The first pieces of a bag, as if they had come from a peer."""
    source = StoredBag.create(store.root / "source", created)
    target = store.prepare(created.info.bag_id, into)
    target.set_info(created.info.to_boc())
    for index in range(pieces):
        target.write_piece(index, source.read_piece(index), source.proof(index))
    target.close()
    source.close()
    return store.directory(created.info.bag_id)


def test_a_bag_that_was_made_is_found_by_its_id_and_by_its_directory(store: BagStore, tmp_path: Path) -> None:
    created = made(tmp_path / "photos")
    assert store.ids() == []
    directory = store.keep(created)
    assert store.ids() == [created.info.bag_id]
    assert store.locate(created.info.bag_id.hex().upper()) == directory == store.locate(str(directory))
    shown = summary(directory)
    assert (shown["complete"], shown["own_files"], shown["files_count"]) == (True, True, 2)
    assert shown["path"] == str(tmp_path / "photos") + "/" or shown["path"] == str(tmp_path / "photos")


def test_unknown_words_and_bags_are_named(store: BagStore) -> None:
    with pytest.raises(UsageError):
        store.locate("holiday")
    with pytest.raises(NotFound):
        store.find("ab" * 32)


def test_only_bags_of_the_store_are_removed_by_id(store: BagStore, tmp_path: Path) -> None:
    elsewhere = tmp_path / "volume-pack"
    StoredBag.create(elsewhere, made(tmp_path / "photos")).close()
    with pytest.raises(UsageError):
        store.find(str(elsewhere))


def test_removing_a_bag_never_deletes_the_files_it_was_made_of(store: BagStore, tmp_path: Path) -> None:
    created = made(tmp_path / "photos")
    assert store.remove(store.keep(created), files=True) == 0
    assert (tmp_path / "photos" / "a").read_bytes() == b"a" * 5000
    assert store.ids() == []


def test_downloaded_files_are_deleted_only_when_asked_for(store: BagStore, tmp_path: Path) -> None:
    created = made(tmp_path / "photos")
    directory = downloaded(store, created, tmp_path / "into", created.info.pieces)
    (tmp_path / "into" / "photos" / "mine").write_bytes(b"not of the bag")
    assert store.remove(directory, files=False) == 0
    assert (tmp_path / "into" / "photos" / "a").exists()
    with pytest.raises(Refused):
        downloaded(BagStore(tmp_path / "second"), created, tmp_path / "into", 1)  # never overwrites
    directory = downloaded(store, created, tmp_path / "other", created.info.pieces)
    (tmp_path / "other" / "photos" / "mine").write_bytes(b"not of the bag")
    assert store.remove(directory, files=True) == 12001
    assert [path.name for path in (tmp_path / "other" / "photos").iterdir()] == ["mine"]


def test_a_download_goes_on_where_it_was_begun_and_nowhere_else(store: BagStore, tmp_path: Path) -> None:
    created = made(tmp_path / "photos")
    downloaded(store, created, tmp_path / "into", 1)
    again = store.prepare(created.info.bag_id, None)
    assert (again.data_root, again.have_count) == (tmp_path / "into", 1)
    again.close()
    with pytest.raises(Refused):
        store.prepare(created.info.bag_id, tmp_path / "other")


def test_making_a_bag_that_is_being_downloaded_is_refused_and_one_that_is_complete_is_left_alone(
    store: BagStore, tmp_path: Path
) -> None:
    created = made(tmp_path / "photos")
    directory = downloaded(store, created, tmp_path / "into", 1)
    with pytest.raises(Refused):
        store.keep(created)
    store.remove(directory, files=True)
    directory = downloaded(store, created, tmp_path / "into", created.info.pieces)
    assert store.keep(created) == directory
    assert summary(directory)["own_files"] is False
