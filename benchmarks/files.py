"""Common file work on a mounted tonfs volume, side by side with the file system below it, in one run.

    .venv/bin/python benchmarks/files.py [--runs 3] [--small 500] [--megabytes 64] [--json FILE]

The volume is made with `tonfs init --network none`. Figures are the best of the runs; the ratio says how many times as
fast as the file system below tonfs is (1.0: as fast).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TONFS = [sys.executable, "-m", "tonfs"]


@contextmanager
def mounted(base: Path) -> Iterator[Path]:
    """A fresh volume without network, mounted."""
    volume, point = base / "volume", base / "mount"
    subprocess.run([*TONFS, "--volume", str(volume), "init", "--network", "none"], check=True, capture_output=True)
    subprocess.run([*TONFS, "--volume", str(volume), "mount", str(point)], check=True, capture_output=True)
    try:
        yield point
    finally:
        subprocess.run([*TONFS, "umount", str(point)], check=False, capture_output=True)


def drop_caches() -> None:
    if os.geteuid() == 0:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")


class Work:
    """The pieces of work; each returns (units done, seconds)."""

    def __init__(self, folder: Path, small: int, megabytes: int) -> None:
        self.folder = folder
        self.small = small
        self.block = os.urandom(1 << 20)
        self.megabytes = megabytes
        self.tree = folder / "tree"

    def _timed(self, units: float, body: Callable[[], None]) -> tuple[float, float]:
        started = time.perf_counter()
        body()
        return units, time.perf_counter() - started

    def sequential_write(self) -> tuple[float, float]:
        def body() -> None:
            with (self.folder / "big").open("wb", buffering=0) as stream:
                for _ in range(self.megabytes):
                    stream.write(self.block)
                os.fsync(stream.fileno())

        return self._timed(self.megabytes, body)

    def sequential_read_cold(self) -> tuple[float, float]:
        drop_caches()

        def body() -> None:
            with (self.folder / "big").open("rb", buffering=0) as stream:
                while stream.read(1 << 20):
                    pass

        return self._timed(self.megabytes, body)

    def create_4k(self) -> tuple[float, float]:
        self.tree.mkdir()

        def body() -> None:
            for n in range(self.small):
                (self.tree / f"f{n}").write_bytes(self.block[:4096])

        return self._timed(self.small, body)

    def stat_cold(self) -> tuple[float, float]:
        drop_caches()
        return self._timed(self.small, lambda: [os.stat(self.tree / f"f{n}") for n in range(self.small)] and None)

    def list_cold(self) -> tuple[float, float]:
        drop_caches()
        return self._timed(self.small, lambda: [e.stat() for e in os.scandir(self.tree)] and None)

    def read_4k_cold(self) -> tuple[float, float]:
        drop_caches()
        return self._timed(self.small, lambda: [(self.tree / f"f{n}").read_bytes() for n in range(self.small)] and None)

    def rename(self) -> tuple[float, float]:
        def body() -> None:
            for n in range(self.small):
                os.rename(self.tree / f"f{n}", self.tree / f"g{n}")

        return self._timed(self.small, body)

    def append_fsync(self) -> tuple[float, float]:
        count = 100

        def body() -> None:
            with (self.folder / "log").open("ab", buffering=0) as stream:
                for _ in range(count):
                    stream.write(self.block[:4096])
                    os.fsync(stream.fileno())

        return self._timed(count, body)

    def remove_tree(self) -> tuple[float, float]:
        return self._timed(self.small, lambda: shutil.rmtree(self.tree))


ORDER = ("sequential_write", "sequential_read_cold", "create_4k", "stat_cold", "list_cold", "read_4k_cold", "rename",
         "append_fsync", "remove_tree")  # fmt: skip


def measure(folder: Path, runs: int, small: int, megabytes: int) -> dict[str, float]:
    """Best rate of each work, units a second (MB for the sequential ones)."""
    best: dict[str, float] = {}
    for run in range(runs):
        place = folder / f"run{run}"
        place.mkdir(parents=True)
        work = Work(place, small, megabytes)
        for name in ORDER:
            units, seconds = getattr(work, name)()
            best[name] = max(best.get(name, 0.0), units / seconds)
        shutil.rmtree(place)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--small", type=int, default=500)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="tonfs-bench-", dir="/var/tmp"))
    try:
        with mounted(base) as point:
            ours = measure(point / "bench", options.runs, options.small, options.megabytes)
        below = measure(base / "below", options.runs, options.small, options.megabytes)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    rows = [{"work": n, "tonfs": round(ours[n]), "below": round(below[n]), "ratio": round(ours[n] / below[n], 3)}
            for n in ORDER]  # fmt: skip
    print(f"{'work':22} {'tonfs /s':>10} {'below /s':>10} {'ratio':>7}")
    for row in rows:
        print(f"{row['work']:22} {row['tonfs']:>10} {row['below']:>10} {row['ratio']:>7.2f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"schema": "tonfs.bench.files/1", "rows": rows}, indent=2), encoding="utf-8")


main()
