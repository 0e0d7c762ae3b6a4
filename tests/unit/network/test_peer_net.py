"""What every `PeerNet` must do: the node in process, and the client of a peer process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.network.swarm_kit import PIECE, FakeProviders, Host, World
from tonfs.bagfiles import StoredBag
from tonfs.control import serve
from tonfs.errors import Busy, NotFound, NotRunning, PeerTimeout, PeerUnreachable, Refused, TimedOut, UsageError
from tonfs.ids import Address, AdnlId, BagId, ProviderKey
from tonfs.network.api import PeerNet, PieceOutcome
from tonfs.network.peer_client import PeerClient
from tonfs.network.peer_control import node_handlers, pack_pieces, parse_pieces

CONTRACT = Address("0:" + "ab" * 32)


@asynccontextmanager
async def _net(kind: str, host: Host) -> AsyncIterator[PeerNet]:
    if kind == "node":
        yield host.node
        return
    with tempfile.TemporaryDirectory() as folder:
        async with trio.open_nursery() as nursery:
            path = Path(folder) / "peer.sock"
            handlers = node_handlers(host.node, host.endpoint, dict, {})
            await nursery.start(lambda task_status: serve(path, handlers, task_status=task_status))
            client = PeerClient(path)
            await nursery.start(client.run)
            yield client
            nursery.cancel_scope.cancel()


@pytest.fixture(params=["node", "client"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def world(nursery: trio.Nursery, tmp_path: Path) -> World:
    return World(nursery, tmp_path)


async def test_it_fetches_a_bag_whole_or_in_part(kind, world, autojump_clock):
    bag = world.make_bag()
    await world.seeder("seeder", bag)
    reader = await world.host("reader")
    async with _net(kind, reader) as net:
        report = await net.fetch(bag.info.bag_id, reader.directory, [5, 9, 6], timeout=60)
        assert (report.have, report.wanted, report.wrong) == (3, 3, 0)
        assert report.bytes == 4 * PIECE  # and the header's piece
        again = await net.fetch(bag.info.bag_id, reader.directory, [5, 9, 6], timeout=60)
        assert (again.have, again.wanted, again.bytes) == (3, 3, 0)
        whole = await net.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
        assert (whole.have, whole.wanted) == (bag.info.pieces, bag.info.pieces)
    assert reader.content() == world.data


async def test_what_it_seeds_others_can_fetch_and_what_it_forgets_not(kind, world, autojump_clock):
    bag = world.make_bag()
    seeder, reader = await world.host("seeder"), await world.host("reader")
    StoredBag.create(seeder.directory, bag)
    async with _net(kind, seeder) as net:
        await net.seed(bag.info.bag_id, seeder.directory)
        await net.seed(bag.info.bag_id, seeder.directory)
        await reader.node.fetch(bag.info.bag_id, reader.directory, [1], timeout=60)
        await net.forget(bag.info.bag_id)
        await net.forget(bag.info.bag_id)
        with pytest.raises((PeerUnreachable, TimedOut)):
            await reader.node.fetch(bag.info.bag_id, reader.directory, [2], timeout=60)
    assert seeder.stored().complete


async def test_fetch_says_why_it_failed(kind, world, autojump_clock):
    bag, other = world.make_bag(), world.make_bag(400, seed=2)
    seeder, reader = await world.seeder("seeder", other), await world.host("reader")
    async with _net(kind, reader) as net:
        with pytest.raises(PeerUnreachable):
            await net.fetch(bag.info.bag_id, reader.directory, None, timeout=60)
        with pytest.raises(Refused):
            await net.fetch(other.info.bag_id, reader.directory, None, timeout=60)
        seeder.source.delay = 2.0
        with pytest.raises(TimedOut):
            await net.fetch(other.info.bag_id, world.folder / "other", None, timeout=6)
        with pytest.raises(UsageError):
            await net.fetch(other.info.bag_id, world.folder / "other", [10_000], timeout=60)
    assert StoredBag.open(world.folder / "other").have_count > 0


async def test_seed_says_why_it_failed(kind, world, autojump_clock):
    bag, other = world.make_bag(), world.make_bag(seed=2)
    host = await world.host("host")
    StoredBag.create(host.directory, bag)
    async with _net(kind, host) as net:
        with pytest.raises(NotFound):
            await net.seed(bag.info.bag_id, world.folder / "nothing")
        with pytest.raises(NotFound):
            await net.seed(other.info.bag_id, host.directory)
        await net.seed(bag.info.bag_id, host.directory)
        with pytest.raises(Busy):
            await net.fetch(bag.info.bag_id, world.folder / "elsewhere", None, timeout=5)


async def test_audits_have_the_four_outcomes(kind, world, autojump_clock):
    bag = world.make_bag()
    bag_id = bag.info.bag_id
    auditor = await world.seeder("auditor", bag)
    good, liar, silent = [await world.seeder(name, bag) for name in ("good", "liar", "silent")]
    liar.source.corrupt = None
    silent.source.mute = True
    async with _net(kind, auditor) as net:
        outcomes = [
            (await net.audit_piece(bag_id, auditor.directory, 7, peer, timeout=15)).outcome
            for peer in (good.id, liar.id, silent.id, AdnlId(bytes(32)))
        ]
        answer = await net.audit_piece(bag_id, auditor.directory, 8, good.id, timeout=15)
        with pytest.raises(UsageError):
            await net.audit_piece(bag_id, auditor.directory, 10_000, good.id, timeout=15)
    assert outcomes == [PieceOutcome.OK, PieceOutcome.WRONG, PieceOutcome.SILENT, PieceOutcome.UNREACHABLE]
    assert answer.bytes == PIECE
    assert answer.seconds > 0


async def test_providers_are_asked_through_it(kind, world, autojump_clock):
    host = await world.host("host")
    async with _net(kind, host) as net:
        provider = FakeProviders.known
        rates = await net.provider_rates(provider, 12345, timeout=5)
        assert (rates.rate_per_mb_day, rates.space_available) == (2**70, 12345)
        status = await net.provider_storage(provider, CONTRACT, 99, timeout=5)
        assert (status.status, status.downloaded, status.proof) == ("active", 99, b"proof")
        assert await net.provider_adnl(provider, CONTRACT, timeout=5) == AdnlId(b"\x07" * 32)
        with pytest.raises(PeerUnreachable):
            await net.provider_rates(ProviderKey(bytes(32)), 1, timeout=5)


async def test_a_cancelled_fetch_leaves_nothing_running(kind, world, autojump_clock):
    bag = world.make_bag(400)
    seeder, reader = await world.seeder("seeder", bag), await world.host("reader")
    seeder.source.delay = 1.0
    async with _net(kind, reader) as net:
        with trio.move_on_after(3):
            await net.fetch(bag.info.bag_id, reader.directory, None, timeout=600)
        await trio.sleep(60)
        asked = sum(seeder.source.asked.values())
        await trio.sleep(60)
        assert sum(seeder.source.asked.values()) == asked


# The client alone.


async def test_a_restarted_peer_process_is_told_again_what_to_seed(world, autojump_clock):
    bag = world.make_bag()
    host = await world.host("host")
    StoredBag.create(host.directory, bag)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peer.sock"
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def process(*, task_status: trio.TaskStatus[None]) -> None:
                with scope:
                    await serve(path, node_handlers(host.node, host.endpoint, dict, {}), task_status=task_status)

            await nursery.start(process)
            client = PeerClient(path)
            await nursery.start(client.run)
            await trio.sleep(1)
            await client.seed(bag.info.bag_id, host.directory)
            assert (await client.status())["bags"][0]["seeding"]
            assert (await client.peers(bag.info.bag_id)) == []
            host.stop()
            scope.cancel()
            await trio.sleep(1)
            with pytest.raises(NotRunning):
                await client.status()
            await host.start()
            scope = trio.CancelScope()
            await nursery.start(process)
            await trio.sleep(6)
            assert (await client.status())["bags"][0]["seeding"]
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("fetch", {}),
        ("fetch", {"bag_id": "00" * 32, "directory": "/x", "timeout": -1}),
        ("fetch", {"bag_id": "00" * 32, "directory": "/x", "timeout": 1, "pieces": [[1]]}),
        ("fetch", {"bag_id": "00" * 32, "directory": "/x", "timeout": 1, "pieces": [[0, 10**9]]}),
        ("seed", {"bag_id": "zz", "directory": "/x"}),
        ("audit_piece", {"bag_id": "00" * 32, "directory": "/x", "piece": "a", "peer": "00" * 32, "timeout": 1}),
        ("provider_rates", {"provider": 5, "size": 1, "timeout": 1}),
        ("provider_storage", {"provider": "00" * 32, "contract": "x", "byte": 1, "timeout": 1}),
    ],
)
async def test_wrong_params_are_a_usage_error(world, autojump_clock, method, params):
    host = await world.host("host")
    handlers = node_handlers(host.node, host.endpoint, dict, {})
    with pytest.raises(UsageError):
        await handlers[method](params)


@given(st.sets(st.integers(0, 300)))
def test_sets_of_pieces_cross_as_runs(pieces):
    runs = pack_pieces(pieces)
    assert parse_pieces(runs) == sorted(pieces)
    assert all(count >= 1 for _, count in runs)


async def test_a_socket_that_closes_in_the_middle_is_a_clear_error(autojump_clock, tmp_path):
    client = PeerClient(tmp_path / "nobody.sock")
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        with pytest.raises(NotRunning):
            await client.fetch(BagId(os.urandom(32)), tmp_path, None, timeout=5)
        nursery.cancel_scope.cancel()


async def test_silence_of_a_provider_is_a_peer_timeout_on_both_sides(kind, world, autojump_clock, monkeypatch):
    async def silent(self, provider, size, *, timeout):
        await trio.sleep(timeout)
        raise PeerTimeout("no answer")

    monkeypatch.setattr(FakeProviders, "provider_rates", silent)
    host = await world.host("host")
    async with _net(kind, host) as net:
        with pytest.raises(PeerTimeout):
            await net.provider_rates(FakeProviders.known, 1, timeout=3)
