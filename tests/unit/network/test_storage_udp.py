"""The storage peer over real sockets on loopback: two nodes in one process, and the peer process itself."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.unit.network.swarm_kit import FakeProviders
from tonfs.bagfiles import CreatedBag, StoredBag, create_bag
from tonfs.clock import SystemClock
from tonfs.control.process import Child
from tonfs.errors import NotRunning
from tonfs.network.api import PieceOutcome
from tonfs.network.dht_client import DhtClient
from tonfs.network.dht_server import DhtServer
from tonfs.network.dht_types import DhtNode
from tonfs.network.global_config import emit_dht
from tonfs.network.keys import KeyPair
from tonfs.network.node import AdnlNode
from tonfs.network.peer_client import PeerClient
from tonfs.network.storage_node import StorageNode

LOOPBACK = ("127.0.0.1", 0)


def make_bag(folder: Path, size: int) -> CreatedBag:
    path = folder / "origin" / "bag"
    path.mkdir(parents=True)
    (path / "data").write_bytes(random.Random(size).randbytes(size))
    return create_bag(path, piece_size=1 << 17)


async def start_dht(nursery: trio.Nursery) -> DhtNode:
    node = AdnlNode(LOOPBACK, clock=SystemClock())
    await nursery.start(node.run)
    server = DhtServer(node.add_identity(KeyPair.generate()), SystemClock())
    await nursery.start(server.run)
    return server.node_entry()


async def start_storage(nursery: trio.Nursery, dht: DhtNode, loss: float, seed: int) -> StorageNode:
    clock = SystemClock()
    node = AdnlNode(LOOPBACK, clock=clock, loss=loss, loss_seed=seed)
    endpoint = node.add_identity(KeyPair.generate())
    await nursery.start(node.run)
    client = DhtClient(endpoint, [dht], clock)
    client.announce_address()
    await nursery.start(client.run)
    storage = StorageNode(endpoint, client, FakeProviders(), clock)
    await nursery.start(storage.run)
    return storage


@pytest.mark.parametrize("loss", [0.0, 0.05])
async def test_a_bag_crosses_real_sockets(tmp_path, loss):
    bag = make_bag(tmp_path, 4_000_000)
    async with trio.open_nursery() as nursery:
        dht = await start_dht(nursery)
        seeder = await start_storage(nursery, dht, loss, 1)
        reader = await start_storage(nursery, dht, loss, 2)
        StoredBag.create(tmp_path / "seeder", bag)
        await seeder.seed(bag.info.bag_id, tmp_path / "seeder")
        report = await reader.fetch(bag.info.bag_id, tmp_path / "reader", None, timeout=60)
        assert (report.have, report.wrong) == (bag.info.pieces, 0)
        origin = (tmp_path / "origin" / "bag" / "data").read_bytes()
        assert (tmp_path / "reader" / "files" / "bag" / "data").read_bytes() == origin
        answer = await reader.audit_piece(bag.info.bag_id, tmp_path / "reader", 11, seeder.id, timeout=30)
        assert answer.outcome is PieceOutcome.OK
        assert answer.bytes == 1 << 17
        await seeder.forget(bag.info.bag_id)
        answer = await reader.audit_piece(bag.info.bag_id, tmp_path / "reader", 11, seeder.id, timeout=2)
        assert answer.outcome is PieceOutcome.SILENT
        nursery.cancel_scope.cancel()


def peer_argv(folder: Path, config: Path, *more: str) -> list[str]:
    words = [sys.executable, "-m", "tonfs.network.peer_process", "--socket", str(folder / "peer.sock")]
    return [*words, "--key-file", str(folder / "peer.key"), "--global-config", str(config), *more]


def write_config(folder: Path, dht: DhtNode) -> Path:
    path = folder / "global.config.json"
    path.write_text(json.dumps({"dht": emit_dht([dht])}), encoding="utf-8")
    return path


@pytest.mark.allow_logs
async def test_two_peer_processes_exchange_a_bag_and_end_in_order(tmp_path):
    bag = make_bag(tmp_path, 3_000_000)
    async with trio.open_nursery() as nursery:
        config = write_config(tmp_path, await start_dht(nursery))
        children, clients = [], []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            child = Child(name, peer_argv(tmp_path / name, config), tmp_path / f"{name}.log")
            child.start()
            children.append(child)
        for name, child in zip(("one", "two"), children, strict=True):
            await child.ready(tmp_path / name / "peer.sock", timeout=30)
            client = PeerClient(tmp_path / name / "peer.sock")
            await nursery.start(client.run)
            clients.append(client)
        seeder, reader = clients
        StoredBag.create(tmp_path / "seeder", bag)
        await seeder.seed(bag.info.bag_id, tmp_path / "seeder")
        report = await reader.fetch(bag.info.bag_id, tmp_path / "reader", None, timeout=60)
        assert report.have == bag.info.pieces
        assert StoredBag.open(tmp_path / "reader").verify() == []
        assert [p["received"] > 3_000_000 for p in await reader.peers(bag.info.bag_id)] == [True]
        await reader.shutdown()
        with trio.fail_after(10):
            assert await children[1].wait() == 0
        with pytest.raises(NotRunning):
            await reader.status()
        assert await children[0].stop(timeout=10) == 0
        assert not (tmp_path / "one" / "peer.sock").exists()
        assert (tmp_path / "one" / "peer.key").stat().st_mode & 0o777 == 0o600
        nursery.cancel_scope.cancel()


async def test_the_peer_process_ends_with_its_parent(tmp_path):
    async with trio.open_nursery() as nursery:
        config = write_config(tmp_path, await start_dht(nursery))
        script = (
            "import subprocess, sys, time; from pathlib import Path\n"
            "from tonfs.control.process import Child\n"
            f"child = Child('peer', {peer_argv(tmp_path, config)!r}, Path({str(tmp_path / 'log')!r}))\n"
            "child.start(); print(child.pid, flush=True); time.sleep(60)\n"
        )
        parent = await trio.to_thread.run_sync(
            lambda: subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        )
        assert parent.stdout is not None
        try:
            pid = int(await trio.to_thread.run_sync(parent.stdout.readline))
            with trio.fail_after(30):
                while not (tmp_path / "peer.sock").exists():
                    await trio.sleep(0.05)
            handle = os.pidfd_open(pid)
            parent.send_signal(signal.SIGKILL)
            with trio.fail_after(15):
                await trio.lowlevel.wait_readable(handle)
            os.close(handle)
        finally:
            parent.kill()
            parent.wait()
            parent.stdout.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--loss", "1.5"], "--loss"),
        (["--listen", "nowhere"], "IPv4"),
        (["--announce-ip", "300.1.1.1"], "IPv4"),
        (["--global-config", "/nowhere/at/all"], "global config"),
        (["--listen", "8.8.8.8:1"], "cannot be used"),
    ],
)
def test_bad_options_end_the_process_with_a_reason(tmp_path, more, word):
    config = tmp_path / "global.config.json"
    config.write_text("{}", encoding="utf-8")
    done = subprocess.run(peer_argv(tmp_path, config, *more), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == (3 if "/nowhere/at/all" in more else 2)
    assert word in done.stderr
    assert "Traceback" not in done.stderr
