"""How fast does one peer process fetch bags from others, on loopback?

    python benchmarks/storage_loopback.py [--size 128] [--loss 0.0] [--peers 8] [--fetched 100] [--bags 1000]
    python benchmarks/storage_loopback.py --table
    python benchmarks/storage_loopback.py --profile reader|seeder

Prints wall-clock MB/s; and of each side (all seeders together) CPU seconds per 100 MB, the same per packet of 768
bytes of data in microseconds, and resident memory. The DHT runs in this process. `--table` prints one row for each of
1 to 8 peers and 1 to 100 bags. `--profile` runs that side under cProfile and prints its hottest functions.
"""

from __future__ import annotations

import argparse
import json
import os
import pstats
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

from tonfs.bagfiles import CreatedBag, StoredBag, create_bag
from tonfs.clock import SystemClock
from tonfs.control.process import Child
from tonfs.ids import BagId
from tonfs.network.dht_server import DhtServer
from tonfs.network.fec import SYMBOL
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


def _bags_to_fetch(folder: Path, size: int, count: int) -> list[CreatedBag]:
    """Bags of `size` bytes in all."""
    found = []
    for number in range(count):
        origin = folder / "origin" / str(number)
        origin.mkdir(parents=True)
        (origin / "data").write_bytes(random.Random(number).randbytes(size // count))
        found.append(create_bag(origin))
    return found


async def _measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    size = options.size * MB
    bags = _bags_to_fetch(folder, size, options.fetched)
    seeders = [f"seeder{number}" if number else "seeder" for number in range(options.peers)]
    async with trio.open_nursery() as nursery:
        dht = AdnlNode(("127.0.0.1", 0), clock=SystemClock())
        await nursery.start(dht.run)
        server = DhtServer(dht.add_identity(KeyPair.generate()), SystemClock())
        await nursery.start(server.run)
        config = folder / "global.config.json"
        config.write_text(json.dumps({"dht": emit_dht([server.node_entry()])}))
        children: dict[str, Child] = {}
        clients: dict[str, PeerClient] = {}
        for name in (*seeders, "reader"):
            (folder / name).mkdir()
            profile = folder / f"{name}.prof" if options.profile == name else None
            child = children[name] = Child(
                name, _command(folder / name, config, options.loss, profile), folder / f"{name}.log"
            )
            child.start()
            await child.ready(folder / name / "peer.sock", timeout=30)
            client = clients[name] = PeerClient(folder / name / "peer.sock")
            await nursery.start(client.run)
        for name in seeders:
            for number, bag in enumerate(bags):
                stored = folder / name / str(number)
                StoredBag.create(stored, bag).close()
                await clients[name].seed(bag.info.bag_id, stored)
        for number in range(options.bags - 1):
            await clients["seeder"].seed(*_small_bag(folder, number))
        await trio.sleep(2 + options.fetched / 50)  # let the records get out, so that only the transfer is measured
        pids = {name: child.pid or 0 for name, child in children.items()}
        before = {name: _cpu(pid) for name, pid in pids.items()}
        pieces = 0

        async def fetch(number: int, bag: CreatedBag) -> None:
            nonlocal pieces
            report = await clients["reader"].fetch(bag.info.bag_id, folder / "fetched" / str(number), None, timeout=600)
            pieces += report.have

        begun = time.perf_counter()
        async with trio.open_nursery() as fetches:
            for number, bag in enumerate(bags):
                fetches.start_soon(fetch, number, bag)
        seconds = time.perf_counter() - begun
        used = {name: _cpu(pid) - before[name] for name, pid in pids.items()}
        rss = {side: _rss(pids[side]) for side in ("seeder", "reader")}
        for client in clients.values():
            await client.shutdown()
        for child in children.values():
            await child.wait()
        nursery.cancel_scope.cancel()
    for number in range(options.fetched):
        assert StoredBag.open(folder / "fetched" / str(number)).verify() == []
    cpu = {"seeder": sum(used[name] for name in seeders), "reader": used["reader"]}
    return {
        "pieces": pieces,
        "seconds": round(seconds, 2),
        "MB/s": round(size / MB / seconds, 1),
        **{f"{side} CPU s per 100 MB": round(100 * MB * spent / size, 2) for side, spent in cpu.items()},
        **{f"{side} us/packet": round(1e6 * spent / (size / SYMBOL), 2) for side, spent in cpu.items()},
        **{f"{side} RSS MiB": round(mib) for side, mib in rss.items()},
    }


def _run(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as text:
        result = trio.run(_measure, options, Path(text))
        if options.profile:
            pstats.Stats(f"{text}/{options.profile}.prof").sort_stats("tottime").print_stats(35)
        return result


def _table(options: argparse.Namespace) -> None:
    columns = ("MB/s", "seeder us/packet", "reader us/packet", "seeder RSS MiB", "reader RSS MiB")
    print("  ".join(f"{name:>16}" for name in ("peers", "bags", *columns)))
    for options.peers, options.fetched in ((1, 1), (2, 1), (4, 1), (8, 1), (1, 10), (1, 100), (8, 100)):
        row = _run(options)
        print("  ".join(f"{value:>16}" for value in (options.peers, options.fetched, *(row[c] for c in columns))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="MB")
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--bags", type=int, default=1, help="bags that the first seeder serves; the others are small")
    parser.add_argument("--peers", type=int, default=1, help="seeders of the bag")
    parser.add_argument("--fetched", type=int, default=1, help="bags fetched at once, of `size` together")
    parser.add_argument("--table", action="store_true", help="a row each for 1 to 8 peers, 1 to 100 bags")
    parser.add_argument("--profile", choices=["reader", "seeder"])
    options = parser.parse_args()
    if options.table:
        _table(options)
    else:
        print(json.dumps(_run(options)))


if __name__ == "__main__":
    main()
