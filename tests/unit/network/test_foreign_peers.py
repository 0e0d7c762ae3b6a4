"""Our node and peers with the manners of the C++ and the Go daemon (reference protocol 5.4, 5.5)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from tests.unit.network.foreign_peers import CppHost, Foreign, GoHost
from tests.unit.network.storage_models import GoPeer
from tests.unit.network.swarm_kit import Host, World
from tonfs.network import overlay, storage_tl
from tonfs.network.api import Peer, PieceOutcome

KINDS = pytest.mark.parametrize("kind", [CppHost, GoHost])


@pytest.fixture
async def world(nursery: trio.Nursery, tmp_path: Path) -> World:
    return World(nursery, tmp_path)


def seen_from(foreign: Foreign, host: Host) -> Peer:
    return foreign.endpoint.peer(host.endpoint.public_key, host.endpoint.address)


@KINDS
async def test_a_bag_is_fetched_from_a_foreign_seeder(kind, world, autojump_clock):
    bag = world.make_bag(100)
    foreign = kind(world, "foreign", bag, full=True)
    reader = await world.host("reader")
    await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
    assert reader.content() == world.data
    assert trio.current_time() < 12
    if isinstance(foreign.model, GoPeer):
        assert set(foreign.model.refused) <= {"id"}


@KINDS
async def test_a_foreign_leecher_gets_the_whole_bag_from_us(kind, world, autojump_clock):
    bag = world.make_bag(60)
    seeder = await world.seeder("seeder", bag)
    foreign = kind(world, "foreign", bag, full=False)
    await foreign.contact(seen_from(foreign, seeder))
    with trio.fail_after(30):
        while len(foreign.got) < bag.info.pieces:
            await trio.sleep(0.1)
    if isinstance(foreign.model, GoPeer):
        assert set(foreign.model.refused) <= {"id"}


@KINDS
async def test_a_foreign_leecher_learns_of_pieces_while_we_get_them(kind, world, autojump_clock):
    bag = world.make_bag(60)
    seeder = await world.seeder("seeder", bag)
    seeder.source.delay = 2.0
    middle = await world.host("middle")
    foreign = kind(world, "foreign", bag, full=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: middle.node.fetch(bag.info.bag_id, middle.directory, None, timeout=100))
        await trio.sleep(3)
        await foreign.contact(seen_from(foreign, middle))
        await trio.sleep(3)
        assert 0 < len(foreign.got) < bag.info.pieces
    await middle.node.seed(bag.info.bag_id, middle.directory)
    with trio.fail_after(30):
        while len(foreign.got) < bag.info.pieces:
            await trio.sleep(0.1)


@KINDS
async def test_a_foreign_provider_is_audited_even_if_it_chokes_at_first(kind, world, autojump_clock):
    bag = world.make_bag(60)
    auditor = await world.seeder("auditor", bag)
    foreign = kind(world, "foreign", bag, full=True)
    for piece in (3, 59):
        answer = await auditor.node.audit_piece(
            bag.info.bag_id, auditor.directory, piece, foreign.endpoint.id, timeout=30
        )
        assert answer.outcome is PieceOutcome.OK


async def test_a_provider_that_never_stops_choking_is_silent_and_the_report_says_choked(world, autojump_clock):
    bag = world.make_bag(60)
    auditor = await world.seeder("auditor", bag)
    foreign = CppHost(world, "foreign", bag, full=True)
    model = foreign.new_model()
    model.unchoke = False
    foreign.new_model = lambda: model  # type: ignore[method-assign]
    answer = await auditor.node.audit_piece(bag.info.bag_id, auditor.directory, 3, foreign.endpoint.id, timeout=30)
    assert answer.outcome is PieceOutcome.SILENT
    assert "choked" in answer.detail


async def test_a_swarm_of_all_three_kinds_under_loss(world, autojump_clock):
    world.net.loss = 0.05
    bag = world.make_bag(100)
    CppHost(world, "cpp", bag, full=True)
    GoHost(world, "go", bag, full=True)
    await world.seeder("ours", bag)
    reader = await world.host("reader")
    await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
    assert reader.content() == world.data


@pytest.mark.parametrize("seed", range(6))
async def test_peers_that_answer_nonsense_break_nothing(world, autojump_clock, seed):
    """Answers of random bytes, of other types, and cut ones, next to a good seeder."""
    chance = random.Random(seed)
    bag = world.make_bag(30)
    honest = CppHost(world, "honest source of bytes", bag, full=True)
    world.dht.members[bag.info.bag_id].clear()
    for number in range(3):
        endpoint = world.net.endpoint(f"nonsense {number}")

        async def nonsense(peer: Peer, data: bytes, by_rldp: bool) -> bytes | None:
            real = await honest.handle(peer, data, by_rldp) or storage_tl.OK
            other = chance.choice([storage_tl.OK, storage_tl.PONG, overlay.PONG, storage_tl.pack_piece(b"", b"")])
            return chance.choice(
                [real, real[:-4], chance.randbytes(chance.randrange(100)), other, b"", real + b"\0" * 4]
            )

        endpoint.set_handler(nonsense)
        world.dht.finder(endpoint).announce_overlay(bag.info.bag_id)
    await world.seeder("good", bag)
    reader = await world.host("reader")
    await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=120)
    assert reader.content() == world.data
    for endpoint in list(world.dht.members[bag.info.bag_id])[:3]:
        answer = await reader.node.audit_piece(bag.info.bag_id, reader.directory, 3, endpoint, timeout=10)
        assert answer.outcome in PieceOutcome
