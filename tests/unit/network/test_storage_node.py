from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from tests.unit.network.swarm_kit import PIECE, World
from tonfs.bagfiles import StoredBag
from tonfs.errors import (
    Busy,
    DhtUnavailable,
    NoSpace,
    NotFound,
    PeerTimeout,
    PeerUnreachable,
    Refused,
    TimedOut,
    UsageError,
)
from tonfs.network import overlay, storage_tl
from tonfs.network.api import PieceOutcome
from tonfs.network.storage_node import SWEEP_EVERY
from tonfs.network.storage_swarm import LINGER, Swarm


@pytest.fixture
async def world(nursery: trio.Nursery, tmp_path: Path) -> World:
    return World(nursery, tmp_path)


async def test_a_bag_is_fetched_whole_and_its_files_are_equal(world, autojump_clock):
    bag = world.make_bag()
    seeder = await world.seeder("seeder", bag)
    reader = await world.host("reader")
    report = await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
    assert (report.have, report.wanted, report.wrong) == (bag.info.pieces, bag.info.pieces, 0)
    assert report.bytes == bag.info.file_size
    assert reader.content() == world.data
    assert set(seeder.source.asked.values()) == {1}
    assert trio.current_time() < 5


async def test_a_bag_that_is_just_being_opened_is_not_swept_away(world, autojump_clock, monkeypatch):
    """The sweep of bags that nobody needs may fall between the opening of a bag and the fetch that wants it."""
    bag = world.make_bag()
    await world.seeder("seeder", bag)
    reader = await world.host("reader")
    run = Swarm.run

    async def sweep_and_run(swarm, *, task_status):
        reader.node._sweep()
        await run(swarm, task_status=task_status)

    monkeypatch.setattr(Swarm, "run", sweep_and_run)
    report = await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
    assert report.have == bag.info.pieces
    await trio.sleep(LINGER + 2 * SWEEP_EVERY)
    assert reader.node.bags() == []


async def test_only_the_pieces_asked_for_and_the_header_are_fetched(world, autojump_clock):
    bag = world.make_bag()
    await world.seeder("seeder", bag)
    reader = await world.host("reader")
    report = await reader.node.fetch(bag.info.bag_id, reader.directory, [7, 3, 4], timeout=60)
    assert (report.have, report.wanted) == (3, 3)
    stored = reader.stored()
    assert [i for i in range(bag.info.pieces) if stored.have(i)] == [0, 3, 4, 7]
    assert reader.content()[4 * PIECE : 5 * PIECE - 100] == world.data[4 * PIECE : 5 * PIECE - 100]


async def test_an_empty_list_of_pieces_fetches_info_and_header(world, autojump_clock):
    bag = world.make_bag()
    await world.seeder("seeder", bag)
    reader = await world.host("reader")
    report = await reader.node.fetch(bag.info.bag_id, reader.directory, [], timeout=60)
    assert (report.have, report.wanted) == (0, 0)
    stored = reader.stored()
    assert stored.header == bag.header
    assert stored.have_count == 1


async def test_pieces_that_are_here_cost_nothing(world, autojump_clock):
    bag = world.make_bag()
    await world.seeder("seeder", bag)
    reader = await world.host("reader")
    await reader.node.fetch(bag.info.bag_id, reader.directory, [3, 4], timeout=60)
    before = trio.current_time()
    sent = len(world.net.sent)
    report = await reader.node.fetch(bag.info.bag_id, reader.directory, [4, 3], timeout=60)
    assert (report.have, report.bytes) == (2, 0)
    assert trio.current_time() == before
    assert len(world.net.sent) == sent


async def test_fetches_of_one_bag_share_what_they_ask_for(world, autojump_clock):
    bag = world.make_bag()
    seeder = await world.seeder("seeder", bag)
    reader = await world.host("reader")
    reports = []

    async def fetch(pieces):
        reports.append(await reader.node.fetch(bag.info.bag_id, reader.directory, pieces, timeout=60))

    async with trio.open_nursery() as nursery:
        for pieces in ([1, 2, 3], [2, 3, 4], None, [39], None):
            nursery.start_soon(fetch, pieces)
    assert len(reports) == 5
    assert set(seeder.source.asked.values()) == {1}
    assert reader.content() == world.data


async def test_a_seeder_that_restarts_in_the_middle_costs_only_time(world, autojump_clock):
    bag = world.make_bag(400)
    seeder = await world.seeder("seeder", bag)
    seeder.source.delay = 0.5
    reader = await world.host("reader")

    async def restart() -> None:
        await trio.sleep(3)
        seeder.stop()
        await trio.sleep(20)
        await seeder.start()
        await seeder.node.seed(bag.info.bag_id, seeder.directory)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(restart)
        await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=300)
    assert reader.content() == world.data


async def test_a_reader_that_restarts_goes_on_where_it_was(world, autojump_clock):
    bag = world.make_bag(100)
    seeder = await world.seeder("seeder", bag)
    seeder.source.delay = 0.5
    reader = await world.host("reader")
    with trio.move_on_after(4):
        await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=300)
    reader.stop()
    had = reader.stored().have_count
    assert 0 < had < bag.info.pieces
    asked = sum(seeder.source.asked.values())
    await reader.start()
    report = await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=300)
    assert report.have == bag.info.pieces
    assert reader.content() == world.data
    assert sum(seeder.source.asked.values()) - asked <= bag.info.pieces - had + 1


async def test_a_liar_among_seeders_is_found_dropped_and_remembered(world, autojump_clock):
    bag = world.make_bag(60)
    good = await world.seeder("good", bag)
    liar = await world.seeder("liar", bag)
    liar.source.corrupt = None
    reader = await world.host("reader")
    report = await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
    assert report.wrong >= 1
    assert reader.content() == world.data
    asked = sum(liar.source.asked.values())
    reader.stored().drop_data()
    await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
    assert reader.content() == world.data
    assert sum(liar.source.asked.values()) == asked
    assert sum(good.source.asked.values()) >= 2 * bag.info.pieces - 2


async def test_a_lone_liar_never_gets_a_byte_through(world, autojump_clock):
    bag = world.make_bag(20)
    liar = await world.seeder("liar", bag)
    liar.source.corrupt = None
    reader = await world.host("reader")
    with pytest.raises((PeerUnreachable, TimedOut)):
        await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
    assert reader.stored().have_count == 0
    assert sum(liar.source.asked.values()) <= 8


async def test_one_rotten_piece_does_not_make_the_only_copy_unreachable(world, autojump_clock):
    bag = world.make_bag(30)
    seeder = await world.seeder("seeder", bag)
    seeder.source.corrupt = {5}
    reader = await world.host("reader")
    with pytest.raises(TimedOut):
        await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
    assert reader.stored().have_count == bag.info.pieces - 1
    assert seeder.source.asked[5] == 1
    await world.seeder("other", bag)
    await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
    assert reader.content() == world.data


async def test_a_silent_seeder_does_not_stop_a_download(world, autojump_clock):
    bag = world.make_bag(60)
    silent = await world.seeder("silent", bag)
    silent.source.mute = True
    await world.seeder("good", bag)
    reader = await world.host("reader")
    begun = trio.current_time()
    await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
    assert reader.content() == world.data
    assert trio.current_time() - begun < 12


async def test_reading_in_order_does_not_wait_for_a_slow_peer(world, autojump_clock):
    bag = world.make_bag(100)
    slow = await world.seeder("slow", bag)
    slow.source.delay = 8.0
    await world.seeder("fast", bag)
    reader = await world.host("reader")
    begun = trio.current_time()
    for start in range(0, 96, 8):
        await reader.node.fetch(bag.info.bag_id, reader.directory, range(start, start + 8), timeout=60)
    assert trio.current_time() - begun < 12


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_five_percent_of_lost_packets_cost_only_time(world, autojump_clock, seed):
    world.net.loss = 0.05
    world.net._random = random.Random(seed)
    bag = world.make_bag(100)
    for name in ("one", "two"):
        await world.seeder(name, bag)
    reader = await world.host("reader")
    await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=120)
    assert reader.content() == world.data


async def test_leechers_serve_each_other_so_the_seeder_uploads_far_less_than_everything(world, autojump_clock):
    bag = world.make_bag(200)
    seeder = await world.seeder("seeder", bag)
    seeder.source.delay = 1.0
    hosts = [await world.host(f"leech{i}") for i in range(5)]
    async with trio.open_nursery() as nursery:
        for host in hosts:
            nursery.start_soon(lambda host=host: host.node.fetch(bag.info.bag_id, host.directory, None, timeout=600))
    for host in hosts:
        assert host.content() == world.data
    assert sum(seeder.source.asked.values()) < 3 * bag.info.pieces


async def test_peers_that_the_record_has_no_room_for_are_found_through_other_members(world, autojump_clock):
    bag = world.make_bag(40)
    hosts = [await world.seeder(f"s{i}", bag) for i in range(8)]
    for host in hosts[3:]:
        host.source.mute = True  # the record names only these, the five newest
    for host in hosts[:3]:
        query = overlay.pack_get_random_peers(host.node._swarms[bag.info.bag_id].own_nodes())
        peer = host.endpoint.peer(hosts[7].endpoint.public_key, hosts[7].endpoint.address)
        await peer.query(overlay.wrap(overlay.overlay_id(bag.info.bag_id), query), timeout=5)
    reader = await world.host("reader")
    await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
    assert reader.content() == world.data
    assert trio.current_time() < 20


async def test_a_bag_that_nobody_has_is_unreachable_long_before_the_deadline(world, autojump_clock):
    bag = world.make_bag()
    reader = await world.host("reader")
    with pytest.raises(PeerUnreachable):
        await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=600)
    assert trio.current_time() < 30


async def test_being_offline_is_not_called_a_missing_bag(world, autojump_clock):
    bag = world.make_bag()
    world.dht.online = False
    reader = await world.host("reader")
    with pytest.raises(DhtUnavailable):
        await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=600)


async def test_at_the_deadline_what_came_stays(world, autojump_clock):
    bag = world.make_bag(200)
    seeder = await world.seeder("seeder", bag)
    seeder.source.delay = 1.0
    reader = await world.host("reader")
    with pytest.raises(TimedOut):
        await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=5)
    assert trio.current_time() < 6
    assert 20 < reader.stored().have_count < bag.info.pieces


async def test_a_full_disk_ends_the_fetch_with_its_reason(world, autojump_clock, monkeypatch):
    bag = world.make_bag()
    await world.seeder("seeder", bag)
    reader = await world.host("reader")

    def full(self, index, data, proof):
        raise NoSpace("the disk is full")

    monkeypatch.setattr(StoredBag, "write_piece", full)
    with pytest.raises(NoSpace):
        await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
    monkeypatch.undo()
    await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
    assert reader.content() == world.data


async def test_a_seeder_that_moved_is_found_again_by_its_record(world, autojump_clock):
    bag = world.make_bag(200)
    seeder = await world.seeder("seeder", bag)
    seeder.source.delay = 0.5
    reader = await world.host("reader")

    async def move() -> None:
        await trio.sleep(2)
        seeder.endpoint.move(("127.0.0.1", 55555))
        world.dht.addresses[seeder.id] = (seeder.endpoint.public_key, seeder.endpoint.address)
        known = reader.endpoint.known_peer(seeder.id)
        assert known is not None
        known.address_known = None  # a real endpoint trusts a silent address no longer

    async with trio.open_nursery() as nursery:
        nursery.start_soon(move)
        await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=120)
    assert reader.content() == world.data


async def test_data_that_another_process_dropped_is_fetched_again(world, autojump_clock):
    bag = world.make_bag()
    await world.seeder("seeder", bag)
    reader = await world.host("reader")
    await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
    reader.stored().drop_data()
    report = await reader.node.fetch(bag.info.bag_id, reader.directory, [5], timeout=60)
    assert report.bytes == PIECE
    assert reader.content()[5 * PIECE : 6 * PIECE - 100] == world.data[5 * PIECE : 6 * PIECE - 100]


async def test_an_info_that_another_process_put_there_is_used(world, autojump_clock):
    bag = world.make_bag()
    reader = await world.host("reader")
    with pytest.raises(PeerUnreachable):
        await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=5)
    reader.stored().set_info(bag.info.to_boc())
    with pytest.raises(UsageError):
        await reader.node.fetch(bag.info.bag_id, reader.directory, [10_000], timeout=5)
    await world.seeder("seeder", bag)
    await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
    assert reader.content() == world.data


@pytest.mark.allow_logs
async def test_a_piece_that_rotted_on_disk_is_not_served(world, autojump_clock):
    bag = world.make_bag()
    seeder = await world.seeder("seeder", bag)
    path = world.folder / "origin1" / "bag" / "data"
    rotten = bytearray(path.read_bytes())
    rotten[10 * PIECE] ^= 1
    path.write_bytes(rotten)
    reader = await world.host("reader")
    with pytest.raises(TimedOut):
        await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=30)
    assert reader.stored().have_count == bag.info.pieces - 1
    info = seeder.node.bag_info(bag.info.bag_id)
    assert info is not None
    assert info.have == bag.info.pieces - 1


async def test_a_seeder_that_nobody_can_dial_dials_those_who_seek(world, autojump_clock):
    bag = world.make_bag()
    seeder = await world.seeder("seeder", bag)
    seeder.endpoint.move(("0.0.0.0", 4444))
    await seeder.node.seed(bag.info.bag_id, seeder.directory)
    del world.dht.addresses[seeder.id]
    reader = await world.host("reader")
    await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
    assert reader.content() == world.data
    assert world.dht.members[bag.info.bag_id] == {}


# Misuse.


async def test_misuse_has_clear_answers(world, autojump_clock):
    bag = world.make_bag()
    seeder = await world.seeder("seeder", bag)
    bag_id = bag.info.bag_id
    other = world.make_bag(seed=2)
    with pytest.raises(NotFound):
        await seeder.node.seed(other.info.bag_id, world.folder / "nothing")
    with pytest.raises(NotFound):
        await seeder.node.seed(other.info.bag_id, seeder.directory)
    with pytest.raises(Refused):
        await seeder.node.fetch(other.info.bag_id, seeder.directory, None, timeout=1)
    with pytest.raises(Busy):
        await seeder.node.fetch(bag_id, world.folder / "elsewhere", None, timeout=1)
    with pytest.raises(UsageError):
        await seeder.node.fetch(bag_id, seeder.directory, [bag.info.pieces], timeout=1)
    with pytest.raises(UsageError):
        await seeder.node.audit_piece(bag_id, seeder.directory, -1, seeder.id, timeout=5)


async def test_a_forgotten_bag_is_not_served_any_more_and_its_files_stay(world, autojump_clock):
    bag = world.make_bag()
    seeder = await world.seeder("seeder", bag)
    await seeder.node.seed(bag.info.bag_id, seeder.directory)
    await seeder.node.forget(bag.info.bag_id)
    await seeder.node.forget(bag.info.bag_id)
    assert world.dht.members[bag.info.bag_id] == {}
    assert seeder.stored().complete
    asker = world.net.endpoint("asker")
    peer = asker.peer(seeder.endpoint.public_key, seeder.endpoint.address)
    with pytest.raises(PeerTimeout):
        await peer.query(overlay.wrap(overlay.overlay_id(bag.info.bag_id), overlay.PING), timeout=5)


# What a stranger sees.


async def test_a_stranger_gets_the_answers_of_a_storage_peer_over_both_transports(world, autojump_clock):
    bag = world.make_bag()
    seeder = await world.seeder("seeder", bag)
    asker = world.net.endpoint("asker")
    peer = asker.peer(seeder.endpoint.public_key, seeder.endpoint.address)
    here = overlay.overlay_id(bag.info.bag_id)

    async def ask(query: bytes, rldp: bool) -> bytes:
        data = overlay.wrap(here, query)
        if rldp:
            return await peer.rldp_query(data, max_answer=100_000, timeout=5)
        return await peer.query(data, timeout=5)

    for rldp in (False, True):
        assert await ask(overlay.PING, rldp) == overlay.PONG
        assert await ask(storage_tl.pack_ping(12), rldp) == storage_tl.PONG
        info = storage_tl.parse_torrent_info(await ask(storage_tl.GET_TORRENT_INFO, rldp))
        assert info == bag.info.to_boc()
        proof, data = storage_tl.parse_piece(await ask(storage_tl.pack_get_piece(2), rldp))
        assert len(data) == PIECE
        assert proof
        nodes = overlay.parse_nodes(await ask(overlay.pack_get_random_peers([]), rldp))
        assert [node.id for node in nodes] == [seeder.id]
        update = storage_tl.UpdateState(storage_tl.State(False, True))
        assert await ask(storage_tl.pack_add_update(12, 1, update), rldp) == storage_tl.OK


async def test_what_is_not_understood_stays_unanswered(world, autojump_clock):
    bag = world.make_bag()
    seeder = await world.seeder("seeder", bag)
    asker = world.net.endpoint("asker")
    peer = asker.peer(seeder.endpoint.public_key, seeder.endpoint.address)
    here = overlay.overlay_id(bag.info.bag_id)
    queries = [
        b"",
        b"\0\0",
        bytes(40),
        overlay.wrap(bytes(32), overlay.PING),
        overlay.wrap(here, b""),
        overlay.wrap(here, overlay.PING + b"\0\0\0\0"),
        overlay.wrap(here, storage_tl.pack_get_piece(bag.info.pieces)),
        overlay.wrap(here, storage_tl.pack_get_piece(2**32 - 1)),
        overlay.wrap(here, storage_tl.pack_ping(1)[:-1]),
        *(overlay.wrap(here, random.Random(i).randbytes(i)) for i in range(30)),
    ]
    async with trio.open_nursery() as nursery:

        async def silent(query: bytes) -> None:
            with pytest.raises(PeerTimeout):
                await peer.query(query, timeout=5)

        for query in queries:
            nursery.start_soon(silent, query)


# Audits.


async def test_an_audit_tells_good_wrong_silent_and_unreachable_apart(world, autojump_clock):
    bag = world.make_bag()
    bag_id = bag.info.bag_id
    auditor = await world.seeder("auditor", bag)
    good, liar, silent, dead = [await world.seeder(name, bag) for name in ("good", "liar", "silent", "dead")]
    liar.source.corrupt = None
    silent.source.mute = True
    dead.stop()
    outcomes = {}

    async def audit(name, peer_id):
        outcomes[name] = await auditor.node.audit_piece(bag_id, auditor.directory, 7, peer_id, timeout=20)

    async with trio.open_nursery() as nursery:
        for host, name in ((good, "good"), (liar, "liar"), (silent, "silent"), (dead, "dead")):
            nursery.start_soon(audit, name, host.id)
        nursery.start_soon(audit, "stranger", type(good.id)(bytes(32)))
    assert outcomes["good"].outcome is PieceOutcome.OK
    assert outcomes["good"].bytes == PIECE
    assert 0 < outcomes["good"].seconds < 1
    assert outcomes["liar"].outcome is PieceOutcome.WRONG
    assert outcomes["silent"].outcome is PieceOutcome.SILENT
    assert outcomes["dead"].outcome is PieceOutcome.UNREACHABLE
    assert outcomes["stranger"].outcome is PieceOutcome.UNREACHABLE
    assert good.source.asked[7] == 1


async def test_an_audit_needs_no_local_data_and_keeps_nothing(world, autojump_clock):
    bag = world.make_bag()
    provider = await world.seeder("provider", bag)
    auditor = await world.host("auditor")
    StoredBag.prepare(auditor.directory, bag.info.bag_id).close()
    answer = await auditor.node.audit_piece(bag.info.bag_id, auditor.directory, 3, provider.id, timeout=20)
    assert answer.outcome is PieceOutcome.OK
    assert auditor.stored().have_count == 0


async def test_an_audit_while_offline_blames_nobody(world, autojump_clock):
    bag = world.make_bag()
    auditor = await world.seeder("auditor", bag)
    provider = await world.seeder("provider", bag)
    world.dht.online = False
    with pytest.raises(DhtUnavailable):
        await auditor.node.audit_piece(bag.info.bag_id, auditor.directory, 3, provider.id, timeout=20)


@pytest.mark.parametrize("seed", range(5))
async def test_audits_survive_losses(world, autojump_clock, seed):
    world.net.loss = 0.05
    world.net._random = random.Random(seed)
    bag = world.make_bag()
    auditor = await world.seeder("auditor", bag)
    provider = await world.seeder("provider", bag)
    for piece in range(10):
        answer = await auditor.node.audit_piece(bag.info.bag_id, auditor.directory, piece, provider.id, timeout=20)
        assert answer.outcome is PieceOutcome.OK


async def test_a_provider_that_dropped_the_data_is_silent_not_unreachable(world, autojump_clock):
    bag = world.make_bag()
    auditor = await world.seeder("auditor", bag)
    provider = await world.host("provider")
    await provider.node.fetch(bag.info.bag_id, provider.directory, None, timeout=60)
    await provider.node.seed(bag.info.bag_id, provider.directory)
    provider.stored().drop_data()
    answer = await auditor.node.audit_piece(bag.info.bag_id, auditor.directory, 7, provider.id, timeout=20)
    assert answer.outcome is PieceOutcome.SILENT


async def test_a_provider_that_forgot_the_bag_is_silent_not_unreachable(world, autojump_clock):
    bag = world.make_bag()
    auditor = await world.seeder("auditor", bag)
    provider = await world.seeder("provider", bag)
    await provider.node.forget(bag.info.bag_id)
    answer = await auditor.node.audit_piece(bag.info.bag_id, auditor.directory, 7, provider.id, timeout=20)
    assert answer.outcome is PieceOutcome.SILENT
    assert "this bag" in answer.detail


# Housekeeping.


async def test_idle_nodes_fall_silent_and_unused_bags_are_closed(world, autojump_clock):
    bag = world.make_bag()
    seeder = await world.seeder("seeder", bag)
    reader = await world.host("reader")
    await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
    await trio.sleep(60)
    assert reader.node.bags() == []
    await trio.sleep(600)
    sent = len(world.net.sent)
    await trio.sleep(600)
    assert len(world.net.sent) == sent
    assert seeder.node.peers(bag.info.bag_id) == []
    assert seeder.node.bag_info(bag.info.bag_id).seeding


async def test_progress_is_told_and_ends_at_everything(world, autojump_clock):
    bag = world.make_bag()
    await world.seeder("seeder", bag)
    reader = await world.host("reader")
    steps = []
    await reader.node.download(
        bag.info.bag_id, reader.directory, timeout=60, progress=lambda have, total: steps.append((have, total))
    )
    assert steps[-1] == (bag.info.pieces, bag.info.pieces)
    assert [have for have, _ in steps] == sorted(have for have, _ in steps)
    peers = reader.node.peers(bag.info.bag_id)
    assert len(peers) == 1
    assert peers[0].received > bag.info.file_size
