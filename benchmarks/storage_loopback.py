"""How fast does one peer process fetch a bag from another, on loopback?

    python benchmarks/storage_loopback.py [--size 128] [--loss 0.0] [--bags 1000] [--profile reader|seeder]

Prints wall-clock MB/s, CPU seconds per 100 MB and resident memory of each side. The DHT runs in this process.
`--profile` runs that side under cProfile and prints its hottest functions.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

from tonfs.bagfiles import StoredBag, create_bag
from tonfs.clock import SystemClock
from tonfs.control.process import Child
from tonfs.ids import BagId
from tonfs.network.dht_server import DhtServer
from tonfs.network.global_config import emit_dht
from tonfs.network.keys import KeyPair
from tonfs.network.node import AdnlNode
from tonfs.network.peer_client import PeerClient

MB = 1_000_000


def _command(folder: Path, config: Path, loss: float, profile: Path | None) -> list[str]:
    words = [sys.executable]
    words += ["-m", "cProfile", "-o", str(profile), "-m"] if profile else ["-m"]
    words += ["tonfs.network.peer_process", "--socket", str(folder / "peer.sock")]
    return [*words, "--key-file", str(folder / "key"), "--global-config", str(config), "--loss", str(loss)]


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss(pid: int) -> float:
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _small_bag(folder: Path, number: int) -> tuple[BagId, Path]:
    path, stored = folder / "small" / str(number), folder / "small-bags" / str(number)
    path.mkdir(parents=True)
    (path / "data").write_bytes(b"%d" % number * 1000)
    bag = create_bag(path)
    StoredBag.create(stored, bag).close()
    return bag.info.bag_id, stored


async def _measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    origin = folder / "origin" / "bag"
    origin.mkdir(parents=True)
    size = options.size * MB
    (origin / "data").write_bytes(random.Random(1).randbytes(size))
    bag = create_bag(origin)
    StoredBag.create(folder / "seeded", bag)
    profiles = {name: folder / f"{name}.prof" if options.profile == name else None for name in ("seeder", "reader")}
    async with trio.open_nursery() as nursery:
        dht = AdnlNode(("127.0.0.1", 0), clock=SystemClock())
        await nursery.start(dht.run)
        server = DhtServer(dht.add_identity(KeyPair.generate()), SystemClock())
        await nursery.start(server.run)
        config = folder / "global.config.json"
        config.write_text(json.dumps({"dht": emit_dht([server.node_entry()])}))
        children: dict[str, Child] = {}
        clients: dict[str, PeerClient] = {}
        for name, profile in profiles.items():
            (folder / name).mkdir()
            child = children[name] = Child(
                name, _command(folder / name, config, options.loss, profile), folder / f"{name}.log"
            )
            child.start()
            await child.ready(folder / name / "peer.sock", timeout=30)
            client = clients[name] = PeerClient(folder / name / "peer.sock")
            await nursery.start(client.run)
        await clients["seeder"].seed(bag.info.bag_id, folder / "seeded")
        for number in range(options.bags - 1):
            await clients["seeder"].seed(*_small_bag(folder, number))
        await trio.sleep(2)  # let the record get out, so that only the transfer is measured
        pids = {name: child.pid or 0 for name, child in children.items()}
        before = {name: _cpu(pid) for name, pid in pids.items()}
        begun = time.perf_counter()
        report = await clients["reader"].fetch(bag.info.bag_id, folder / "fetched", None, timeout=600)
        seconds = time.perf_counter() - begun
        used = {name: _cpu(pid) - before[name] for name, pid in pids.items()}
        rss = {name: _rss(pid) for name, pid in pids.items()}
        for client in clients.values():
            await client.shutdown()
        for child in children.values():
            await child.wait()
        nursery.cancel_scope.cancel()
    assert StoredBag.open(folder / "fetched").verify() == []
    return {
        "pieces": report.have,
        "seconds": round(seconds, 2),
        "MB/s": round(size / MB / seconds, 1),
        **{f"{name} CPU s per 100 MB": round(100 * MB * cpu / size, 2) for name, cpu in used.items()},
        **{f"{name} RSS MiB": round(mib) for name, mib in rss.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="MB")
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--bags", type=int, default=1, help="bags that the seeder serves; small ones but the first")
    parser.add_argument("--profile", choices=["reader", "seeder"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        print(json.dumps(trio.run(_measure, options, folder)))
        if options.profile:
            import pstats

            pstats.Stats(str(folder / f"{options.profile}.prof")).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
