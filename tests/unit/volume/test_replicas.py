"""How many replicas a file asks for: the nearest directory that says something counts."""

from __future__ import annotations

import errno

import pytest

from tests.unit.volume.helpers import Packer
from tests.unit.volume.test_names import refused
from tests.unit.volume.test_objects import put
from tonfs.errors import Unsupported, UsageError
from tonfs.ids import Inode
from tonfs.volume import ROOT, Volume, replicas

REPLICAS = b"user.tonfs.policy.replicas"
PIN = b"user.tonfs.policy.pin"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "PAUSE", 0.0)


def groups(volume: Volume, limit: int = 1 << 30) -> list[tuple[int | None, set[bytes]]]:
    """What is offered to the packer, report after report."""
    found, packer = [], Packer()
    while (report := volume.dirty(0.0, limit, force=True)).files:
        found.append((report.replicas, {file.path for file in report.files}))
        packer.pack_all(volume)
    return found


def asked(volume: Volume) -> list[tuple[int, bool]]:
    return [(pack.asked.most, pack.asked.unsaid) for pack in volume.packs()]


def test_files_that_want_different_numbers_go_into_different_packs(volume: Volume, tree: dict[str, Inode]) -> None:
    volume.set_xattr(tree["a"], REPLICAS, b"3")
    volume.set_xattr(tree["b"], REPLICAS, b"7")
    assert groups(volume) == [(3, {b"a/f"}), (7, {b"a/b/g"}), (None, {b"h"})]
    assert asked(volume) == [(3, False), (7, False), (0, True)]


def test_a_pack_follows_what_is_said_later(volume: Volume, tree: dict[str, Inode]) -> None:
    assert groups(volume) == [(None, {b"a/f", b"a/b/g", b"h"})]
    assert asked(volume) == [(0, True)]
    volume.set_xattr(tree["b"], REPLICAS, b"7")
    assert asked(volume) == [(7, True)]
    volume.set_xattr(ROOT, REPLICAS, b"2")
    assert asked(volume) == [(7, False)]
    volume.unlink(tree["b"], b"g")
    assert asked(volume) == [(2, False)]
    volume.remove_xattr(ROOT, REPLICAS)
    volume.set_xattr(tree["h"], REPLICAS, b"9")
    assert asked(volume) == [(9, True)]


def test_a_file_with_two_names_asks_for_the_larger_number(volume: Volume, tree: dict[str, Inode]) -> None:
    volume.set_xattr(tree["a"], REPLICAS, b"3")
    volume.set_xattr(tree["b"], REPLICAS, b"7")
    volume.link(tree["f"], tree["b"], b"again")
    assert (7, {b"a/f", b"a/b/g"}) in [
        (n, {p.replace(b"a/b/again", b"a/f") for p in paths}) for n, paths in groups(volume)
    ]
    assert asked(volume)[0] == (7, False)


def test_the_group_that_fills_a_pack_goes_first_and_else_the_oldest(volume: Volume, tree: dict[str, Inode]) -> None:
    volume.set_xattr(tree["a"], REPLICAS, b"3")
    for number in range(3):
        inode = volume.create(ROOT, b"large%d" % number, 0o644, 0, 0).inode
        volume.write(inode, 0, b"x" * 20_000)
    report = volume.dirty(0.0, 30_000, force=True)
    assert (report.replicas, report.more) == (None, True)
    report = volume.dirty(0.0, 1 << 20, force=True)
    assert (report.replicas, report.more) == (3, False)


def test_an_object_beside_its_directory_is_below_the_bucket(volume: Volume) -> None:
    bucket = volume.create_bucket(b"bucket", 0, 0).inode
    beside = put(volume, bucket, b"a", b"beside")
    put(volume, bucket, b"a/b", b"below")
    volume.set_xattr(bucket, REPLICAS, b"2")
    volume.set_xattr(bucket, PIN, b"true")
    packer = Packer()
    assert volume.dirty(0.0, 1 << 30, force=True).replicas == 2
    assert packer.pack_all(volume) == 2
    assert asked(volume) == [(2, False)]
    assert volume.pinned_among([beside.inode]) == {beside.inode}


def test_the_walk_is_not_made_at_each_question(
    volume: Volume, tree: dict[str, Inode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "PAUSE", 1e9)
    volume.set_xattr(tree["a"], REPLICAS, b"3")
    groups(volume)
    assert asked(volume) == [(3, False), (0, True)]
    volume.set_xattr(tree["a"], REPLICAS, b"4")
    assert asked(volume) == [(3, False), (0, True)], "the tree was walked a moment ago"
    volume.write(tree["f"], 0, b"new")
    groups(volume)
    assert (4, False) in asked(volume), "a pack that is not known yet is looked at"


def test_only_sensible_numbers_are_taken(volume: Volume) -> None:
    for value in (b"0", b"101", b"-1", b"many", b"1.5", b""):
        with pytest.raises(UsageError):
            volume.set_xattr(ROOT, REPLICAS, value)
    volume.set_xattr(ROOT, REPLICAS, b" 05 ")
    assert volume.get_xattr(ROOT, REPLICAS) == b"5"
    with pytest.raises(Unsupported):
        volume.set_xattr(ROOT, b"user.tonfs.policy.deadline", b"10m")
    refused(errno.ENODATA, lambda: volume.get_xattr(ROOT, PIN))
