"""How fast is a bag made, beside tonutils-storage in the same run?

    python benchmarks/bag_creation.py [--gib 2] [--files 20000] [--rounds 3] [--json FILE]

Wall and CPU seconds of hashing and keeping the tree in a process that is up, as the daemon is, and of the daemon's
HTTP call `create`, taken in turns, best of the rounds; CPU and peak memory with the processes that
help; `command` is the whole `tonfs bag create`.
Every round checks that the BagIDs agree. Without the Go programs (`scripts/judges.sh go`) only ours is measured. On a
machine that others use look at the CPU ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from scripts.interop.go_daemon import DAEMON, Daemon, devnet  # noqa: E402
from scripts.interop.kit import TONFS  # noqa: E402

GOALS = {"file": 1.2, "small files": 1.0}


def make_file(path: Path, size: int) -> Path:
    """Bytes that repeat nowhere, made fast."""
    block = bytearray(os.urandom(1 << 20))
    with path.open("wb") as out:
        for number in range(size >> 20):
            for at in range(0, len(block), 1 << 16):
                block[at : at + 8] = (number << 20 | at).to_bytes(8, "big")
            out.write(block)
        out.write(b"odd")  # never an exact multiple of the piece size
    return path


def make_files(root: Path, count: int) -> Path:
    for number in range(count):
        folder = root / f"{number // 100:04}"
        if number % 100 == 0:
            folder.mkdir(parents=True)
        (folder / f"{number:06}.txt").write_bytes(os.urandom(64) * (number % 97 + 1))
    return root


WORKER = """
import json, os, resource, sys, time
from pathlib import Path
from tonfs.bagfiles import create_bag
from tonfs.bagfiles.store import BagStore
from tonfs.bagfiles import hashing
helpers = {}
class Watched(hashing.HashingProcess):  # ru_maxrss of a child counts the parent it was forked from
    def stop(self):
        if self._process is not None:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
            helpers[self._process.pid] = int(status.split("VmHWM:")[1].split()[0])
        super().stop()
hashing.HashingProcess = Watched
def peak():
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + sum(helpers.values())
    helpers.clear()
    return kib / 1024
for line in sys.stdin:
    path, store = (Path(word) for word in json.loads(line))
    before, begun = sum(os.times()[:4]), time.perf_counter()
    created = create_bag(path, notes=store / "making")
    BagStore(store).keep(created)
    row = {"seconds": time.perf_counter() - begun, "cpu": sum(os.times()[:4]) - before}
    row.update(bag_id=created.info.bag_id.hex(), MiB=peak())
    print(json.dumps(row), flush=True)
"""


@contextmanager
def our_worker() -> Iterator[subprocess.Popen[str]]:
    """A process that is up, as the daemon is."""
    with subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        yield worker
        assert worker.stdin is not None
        worker.stdin.close()


def ours(worker: subprocess.Popen[str], path: Path, store: Path) -> dict[str, Any]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(json.dumps([str(path), str(store)]) + "\n")
    worker.stdin.flush()
    row: dict[str, Any] = json.loads(worker.stdout.readline())
    return row


def command(path: Path, store: Path) -> float:
    """Wall seconds of the whole command, start of Python included."""
    begun = time.perf_counter()
    subprocess.run(
        [TONFS, "bag", "create", str(path), "--store", str(store), "--json"], check=True, capture_output=True
    )
    return time.perf_counter() - begun


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def theirs(daemon: Daemon, path: Path) -> tuple[str, float, float]:
    before, begun = cpu_of(daemon.pid), time.perf_counter()
    bag = daemon.create(path)
    seconds, cpu = time.perf_counter() - begun, cpu_of(daemon.pid) - before
    daemon.api("remove", {"bag_id": bag, "with_files": False})
    return bag, seconds, cpu


@contextmanager
def go_daemon(base: Path) -> Iterator[Daemon | None]:
    if not DAEMON.exists():
        print("tonutils-storage is not built here (scripts/judges.sh go); ours alone", flush=True)
        yield None
        return
    with devnet(base) as net, Daemon(base, "daemon", net["global_config"]).running() as daemon:
        yield daemon


def measure(name: str, path: Path, base: Path, daemon: Daemon | None, rounds: int) -> dict[str, Any]:
    best: dict[str, Any] = {}
    whole = go = go_cpu = float("inf")
    with our_worker() as worker:
        for number in range(rounds):
            mine = ours(worker, path, base / f"store-{number}")
            best = {key: min(value, best.get(key, value)) for key, value in mine.items()} | {"MiB": mine["MiB"]}
            if daemon is not None:
                bag, seconds, cpu = theirs(daemon, path)
                if bag != mine["bag_id"]:
                    raise RuntimeError(f"{name}: {mine['bag_id']} here, {bag} there")
                go, go_cpu = min(go, seconds), min(go_cpu, cpu)
            whole = min(whole, command(path, base / "store"))
    row = {"what": name, **{key: round(best[key], 2) for key in ("seconds", "cpu", "MiB")}, "command": round(whole, 2)}
    if daemon is not None:
        row.update(go_seconds=round(go, 2), ratio=round(go / best["seconds"], 2), goal=GOALS[name])
        row.update(go_cpu=round(go_cpu, 2), cpu_ratio=round(go_cpu / best["cpu"], 2))
    print(json.dumps(row), flush=True)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tonfs-bench-", dir="/var/tmp") as text:
        base = Path(text)
        file = make_file(base / "large.bin", int(options.gib * (1 << 30)))
        files = make_files(base / "many", options.files)
        with go_daemon(base) as daemon:
            rows = [
                measure("file", file, base, daemon, options.rounds),
                measure("small files", files, base, daemon, options.rounds),
            ]
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
