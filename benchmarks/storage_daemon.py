"""How fast a bag gets from one peer to another: ours, and tonutils-storage v1.4.1 where it was built, in one run.

    python benchmarks/storage_daemon.py [--size 64] [--rounds 1] [--json FILE] [--pairs ours-ours,go-go] [--cases plain]

Each line is a pair (who seeds, who gets) on a path: MB of verified pieces per second from asking to having all, CPU
seconds per 100 MB of either side, and bytes sent by the seeder per byte of piece (ours only). All is on loopback;
paths that lose, delay or shape are a relay of ours (relay.py), the same for all. `cold` rows: seconds until the first
piece of a bag whose seeder was never met, and the same when the first four datagrams to it are lost. The shaped link
holds 100 ms, or a quarter of what it holds on the way (12.5 ms); framing takes 23 % of it, so 9.7 MB/s is all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trio

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.interop.go_daemon import DAEMON, RELAYED, Daemon, devnet, free_udp_port  # noqa: E402
from tonfs.bagfiles import StoredBag, create_bag  # noqa: E402
from tonfs.control.process import Child  # noqa: E402
from tonfs.ids import bag_id  # noqa: E402
from tonfs.network.peer_client import PeerClient  # noqa: E402

MB = 1_000_000
CASES: dict[str, list[str]] = {
    "plain": [],
    "5 % loss": ["--loss", "0.05"],
    "30 ms": ["--delay", "0.015"],
    "50 ms 100 Mbit/s": ["--delay", "0.025", "--mbit", "100"],
    "the same short queue": ["--delay", "0.025", "--mbit", "100", "--queue", "0.0125"],
}
TOGETHER = {"two at once": CASES["50 ms 100 Mbit/s"], "two at once short queue": CASES["the same short queue"]}
"""Two of ours get a bag each through one link: `fair` is the slower one's rate as a share of the faster one's."""
COLD: dict[str, list[str]] = {"cold": ["--delay", "0"], "cold 4 lost": ["--drop-first", "4"]}
PAIRS = ("ours-ours", "go-go", "go-ours", "ours-go")


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def relay(port: int, words: list[str]) -> Iterator[None]:
    """The path in front of a seeder at `port`; none when there are no words."""
    if not words:
        yield
        return
    argv = [sys.executable, str(ROOT / "benchmarks" / "relay.py"), "--port", str(port), *words]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        assert process.stdin is not None
        process.stdin.close()


class Ours:
    """One of our peer processes."""

    def __init__(self, base: Path, name: str, config: str, announce: str = "127.0.0.1") -> None:
        self.folder = base / name
        self.folder.mkdir(parents=True)
        self.udp = free_udp_port()
        words = [sys.executable, "-m", "tonfs.network.peer_process", "--socket", str(self.folder / "peer.sock")]
        words += ["--key-file", str(self.folder / "key"), "--global-config", config]
        words += ["--listen", f"127.0.0.1:{self.udp}", "--announce-ip", announce]
        self._child = Child(name, words, self.folder / "log")

    @property
    def pid(self) -> int:
        return self._child.pid or 0

    async def _with_client(self, work: Any) -> Any:
        async with trio.open_nursery() as nursery:
            client = PeerClient(self.folder / "peer.sock")
            await nursery.start(client.run)
            found = await work(client)
            nursery.cancel_scope.cancel()
        return found

    def call(self, work: Any) -> Any:
        return trio.run(self._with_client, work)

    @contextmanager
    def running(self) -> Iterator[Ours]:
        async def start() -> None:
            self._child.start()
            await self._child.ready(self.folder / "peer.sock", timeout=60)

        trio.run(start)
        try:
            yield self
        finally:
            with suppress(Exception):
                self.call(lambda client: client.shutdown())
            trio.run(self._child.wait)

    def seed(self, bag: str, stored: Path) -> None:
        self.call(lambda client: client.seed(bag_id(bag), stored))

    def get(self, bag: str, pieces: list[int] | None = None) -> float:
        async def fetch(client: PeerClient) -> float:
            begun = time.perf_counter()
            await client.fetch(bag_id(bag), self.folder / f"got-{bag[:8]}", pieces, timeout=300)
            return time.perf_counter() - begun

        found: float = self.call(fetch)
        return found

    def sent(self) -> int:
        return int(self.call(lambda client: client.status())["traffic"]["bytes_out"])


def go_get(daemon: Daemon, bag: str) -> float:
    begun = time.perf_counter()
    daemon.add(bag)
    daemon.wait_for(bag, 300)
    return time.perf_counter() - begun


def one_run(base: Path, config: str, pair: str, words: list[str], source: Path, stored: Path, bag: str,
            pieces: list[int] | None) -> dict[str, float]:  # fmt: skip
    """One transfer between two fresh peers."""
    size = sum(one.stat().st_size for one in [source, *source.rglob("*")] if one.is_file())
    announce = RELAYED if words else "127.0.0.1"
    seeds, gets = pair.split("-")
    seeder: Any = Ours(base, "seeder", config, announce) if seeds == "ours" else Daemon(
        base, "seeder", config, announce=announce)  # fmt: skip
    getter: Any = Ours(base, "getter", config) if gets == "ours" else Daemon(base, "getter", config)
    with relay(seeder.udp, words), seeder.running(), getter.running():
        if seeds == "ours":
            seeder.seed(bag, stored)
        elif seeder.create(source) != bag:
            raise RuntimeError("the daemon made another bag")
        time.sleep(4)  # the record gets out: only the transfer is measured
        before = [cpu_of(seeder.pid), cpu_of(getter.pid)]
        sent = seeder.sent() if seeds == "ours" else 0
        seconds = getter.get(bag, pieces) if gets == "ours" else go_get(getter, bag)
        used = [cpu_of(seeder.pid) - before[0], cpu_of(getter.pid) - before[1]]
        row = {"seconds": seconds}
        if pieces is None:
            row |= {"MB/s": size / MB / seconds, "seed CPU": 100 * MB * used[0] / size}
            row["get CPU"] = 100 * MB * used[1] / size
            if seeds == "ours":
                row["sent/byte"] = (seeder.sent() - sent) / size
    return row


def two_at_once(base: Path, config: str, words: list[str], size: int) -> dict[str, float]:
    """Two fresh readers of one fresh seeder. A bag each, or they would help each other."""
    bags = []
    for number in (1, 2):
        source = base / f"data-{number}"
        source.write_bytes(random.Random(number).randbytes(size * MB))
        created = create_bag(source)
        StoredBag.create(base / f"stored-{number}", created).close()
        bags.append(created.info.bag_id.hex())
    seeder = Ours(base, "seeder", config, RELAYED)
    first, second = Ours(base, "first", config), Ours(base, "second", config)
    with relay(seeder.udp, words), seeder.running(), first.running(), second.running(), ThreadPoolExecutor(2) as pool:
        for number, bag in enumerate(bags, 1):
            seeder.seed(bag, base / f"stored-{number}")
        time.sleep(4)
        seconds = sorted(pool.map(lambda one, bag: one.get(bag), (first, second), bags))
    return {"seconds": seconds[1], "MB/s": 2 * size / seconds[1], "fair": seconds[0] / seconds[1]}


def best(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: round((max if key == "MB/s" else min)(row[key] for row in rows), 2) for key in rows[0]}


def note(found: dict[tuple[str, str], list[dict[str, float]]], pair: str, case: str, row: dict[str, float]) -> None:
    found.setdefault((pair, case), []).append(row)
    print(f"{case:>23} {pair:>10} " + "  ".join(f"{k} {v:.2f}" for k, v in row.items()), flush=True)


def measure(options: argparse.Namespace, base: Path, config: str) -> list[dict[str, Any]]:
    source = base / "data"
    source.write_bytes(random.Random(1).randbytes(options.size * MB))
    created = create_bag(source)
    bag, stored = created.info.bag_id.hex(), base / "stored"
    StoredBag.create(stored, created).close()
    pairs = [pair for pair in options.pairs.split(",") if "go" not in pair or DAEMON.exists()]
    jobs: list[tuple[str, str, list[str], list[int] | None]] = []
    for case, words in CASES.items():
        jobs += [(pair, case, words, None) for pair in pairs]
    jobs += [("ours-ours", case, words, [created.info.pieces // 2]) for case, words in COLD.items()]
    jobs = [job for job in jobs if job[1] in options.cases.split(",")] if options.cases else jobs
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(options.rounds):
        for pair, case, words, pieces in jobs:
            with tempfile.TemporaryDirectory(prefix=f"{pair}-{number}-", dir=base) as folder:
                row = one_run(Path(folder), config, pair, words, source, stored, bag, pieces)
            note(found, pair, case, row)
        for case, words in TOGETHER.items():
            if "ours-ours" in pairs and (not options.cases or case in options.cases.split(",")):
                with tempfile.TemporaryDirectory(prefix="two-", dir=base) as folder:
                    note(found, "ours-ours", case, two_at_once(Path(folder), config, words, options.size))
    return [{"pair": pair, "path": case, **best(rows)} for (pair, case), rows in found.items()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="MB")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pairs", default=",".join(PAIRS))
    parser.add_argument("--cases", default="", help=f"some of {', '.join([*CASES, *COLD, *TOGETHER])}; default: all")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not DAEMON.exists():
        print("tonutils-storage is not built here (scripts/judges.sh go); ours alone", flush=True)
    with tempfile.TemporaryDirectory(prefix="tonfs-bench-", dir="/var/tmp") as text:
        base = Path(text)
        with devnet(base) as net:
            rows = measure(options, base, net["global_config"])
    rates = {(row["pair"], row["path"]): row for row in rows if "MB/s" in row}
    for (pair, case), row in rates.items():
        go = rates.get(("go-go", case))
        if pair == "ours-ours" and go is not None:
            row["times Go"] = round(row["MB/s"] / go["MB/s"], 2)
            row["CPU share"] = round((row["seed CPU"] + row["get CPU"]) / (go["seed CPU"] + go["get CPU"]), 2)
            print(f"{case:>18}  {row['times Go']:.1f} times Go's rate at {row['CPU share']:.2f} of its CPU a byte")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"schema": "tonfs.bench.daemon/1", "rows": rows}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
