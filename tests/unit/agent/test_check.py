"""Level 3 of fsck: agent.db against the index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tonfs.agent.check import IndexedPack, check_placements
from tonfs.agent.placement import Event
from tonfs.agent.store import AgentStore
from tonfs.bagfiles import write_pack
from tonfs.bagfiles.pack import PackInput
from tonfs.errors import Damaged
from tonfs.ids import BagId, Inode, NanoTon, ProviderKey

PROVIDER = ProviderKey(bytes(32))


class World:
    """A pack on the disk, known to the agent, at one provider that proved it."""

    def __init__(self, volume: Path) -> None:
        self.volume = volume
        content = volume / "content"
        content.write_bytes(b"bytes")
        (volume / "packs").mkdir()
        entry = PackInput(Inode(2), 1, "f", 0o100644, 0, 5, ((0, 5),), ((content, 0),))
        written = write_pack(volume / "packs", [entry], created="2026-01-02T03:04:05Z")
        info = written.bag.info
        assert info is not None
        self.bag: BagId = written.bag.bag_id
        written.bag.close()
        self.store = AgentStore(volume / "agent.db")
        self.store.add_bag(self.bag, info.to_boc(), info.file_size, 1, 0.0)
        self.store.quote(self.bag, PROVIDER, NanoTon(1), 60, 0.0)
        for event in (Event.LISTED, Event.HEALTHY):
            self.store.event(self.bag, PROVIDER, event, 1.0)
        self.store.conn.execute("UPDATE placement SET audit_pieces = 3")
        self.pack = IndexedPack(self.bag, proven=1, used=True, remote=True)

    def kinds(self, *packs: IndexedPack) -> set[tuple[str, bool]]:
        return {(one.kind, one.harmless) for one in check_placements(self.volume, packs)}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.store.close()


def test_both_databases_agree(world: World) -> None:
    assert world.kinds(world.pack) == set()


def test_a_pack_that_the_agent_does_not_know_is_adopted_only_from_its_files(world: World) -> None:
    world.store.conn.executescript("DELETE FROM placement; DELETE FROM bag")
    assert world.kinds(world.pack) == {("pack-unknown-to-agent", True)}
    (world.volume / "packs" / world.bag.hex()).rename(world.volume / "elsewhere")
    assert world.kinds(world.pack) == {("pack-unknown-to-agent", False)}
    assert world.kinds(replace(world.pack, used=False)) == set()


def test_more_proofs_than_the_agent_has_seen_matter_where_bytes_were_evicted(world: World) -> None:
    assert world.kinds(replace(world.pack, proven=2)) == {("proven-count", False)}
    assert world.kinds(replace(world.pack, proven=2, remote=False)) == {("proven-count", True)}


def test_evicted_bytes_that_nobody_has(world: World) -> None:
    world.store.conn.execute("UPDATE placement SET state = 'gone'")
    (world.volume / "packs" / world.bag.hex()).rename(world.volume / "elsewhere")
    found = world.kinds(replace(world.pack, proven=0))
    assert found == {("pack-lost", False), ("pack-missing", False)}


def test_a_pack_missing_here_comes_back_from_its_providers(world: World) -> None:
    (world.volume / "packs" / world.bag.hex()).rename(world.volume / "elsewhere")
    assert world.kinds(world.pack) == {("pack-missing", True)}


def test_a_pack_that_was_given_up_and_is_needed(world: World) -> None:
    world.store.set_bag_state(world.bag, "closing")
    assert world.kinds(world.pack) == {("pack-given-up", False)}


def test_a_bag_that_nobody_needs_is_paid_for(world: World) -> None:
    assert world.kinds() == {("bag-unused", False)}


def test_a_damaged_description(world: World) -> None:
    world.store.conn.execute("UPDATE bag SET info = x'00'")
    assert world.kinds(world.pack) == {("bag-info", False)}


def test_without_agent_db_packs_have_no_keeper(world: World) -> None:
    world.store.close()
    (world.volume / "agent.db").unlink()
    assert world.kinds(world.pack) == {("agent-db", False)}
    assert world.kinds() == set()


def test_a_file_that_is_no_database(world: World) -> None:
    world.store.close()
    (world.volume / "agent.db").write_bytes(b"noise" * 1000)
    with pytest.raises(Damaged, match=r"agent\.db"):
        world.kinds(world.pack)
