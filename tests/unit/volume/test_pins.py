"""Pinned files keep their local copies, whoever asks for the space."""

from __future__ import annotations

import pytest

from tests.unit.volume.helpers import Packer, check, everything
from tonfs.ids import Inode
from tonfs.volume import ROOT, Volume

PIN = b"user.tonfs.policy.pin"


@pytest.fixture(autouse=True)
def packed(volume: Volume, tree: dict[str, Inode]) -> None:
    """All of it is packed and proven."""
    Packer().pack_all(volume)


def local(volume: Volume, tree: dict[str, Inode]) -> set[str]:
    check(volume)
    return {name for name in "fgh" if not volume.read(tree[name], 0, 10).missing}


def test_nothing_pinned_means_everything_goes(volume: Volume, tree: dict[str, Inode]) -> None:
    volume.evict(everything(volume))
    assert local(volume, tree) == set()


def test_a_pinned_directory_keeps_what_is_below(volume: Volume, tree: dict[str, Inode]) -> None:
    volume.set_xattr(tree["a"], PIN, b"true")
    done = volume.evict(everything(volume))
    assert local(volume, tree) == {"f", "g"}
    assert done.files == 1
    assert done.kept == ((tree["f"], "pinned"), (tree["g"], "pinned"))


def test_the_nearest_word_counts(volume: Volume, tree: dict[str, Inode]) -> None:
    volume.set_xattr(ROOT, PIN, b"true")
    volume.set_xattr(tree["b"], PIN, b"false")
    volume.evict(everything(volume))
    assert local(volume, tree) == {"f", "h"}
    volume.remove_xattr(ROOT, PIN)
    volume.evict(everything(volume))
    assert local(volume, tree) == set()


def test_a_file_is_pinned_by_any_of_its_names(volume: Volume, tree: dict[str, Inode]) -> None:
    volume.set_xattr(tree["b"], PIN, b"true")
    volume.link(tree["h"], tree["b"], b"again")
    volume.evict(everything(volume))
    assert local(volume, tree) == {"g", "h"}


def test_making_room_spares_what_is_pinned(volume: Volume, tree: dict[str, Inode]) -> None:
    volume.set_xattr(tree["g"], PIN, b"true")
    volume.evict_down_to(0)
    assert local(volume, tree) == {"g"}
