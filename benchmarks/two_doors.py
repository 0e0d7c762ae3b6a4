"""What the mount loses while the S3 door of the same volume is under load, and how long a `stat` takes then.

    .venv/bin/python benchmarks/two_doors.py [--rounds 3] [--seconds 2] [--json FILE]

Rounds with a quiet door, with a process beside that only burns a core (what any load costs on this machine), and with
four clients of the S3 door come in turn; best rates and the median of the p99s of the rounds are shown. The ratios are
to the mount alone, so that they hold the CPU time of the clients, too. Below stands what the clients of the door got
meanwhile, and without a mount at work. Every `stat` is of a name that the kernel has not got (as root).
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from file_targets import TONFS
from s3_load import Server, Signer, load

KINDS = ("alone", "busy", "s3 get 1M", "s3 put 4k")
IDLE = "no mount at work"
NAMES = 20_000
RATE_GOAL, P99_GOAL = 2 / 3, 0.020


@contextmanager
def beside(kind: str, server: Server) -> Iterator[Callable[[], int]]:
    """A child process that does `kind` until the block ends. Gives the number of requests it has done so far."""
    done = mmap.mmap(-1, 8)
    pid = os.fork() if kind != "alone" else 0
    if kind != "alone" and pid == 0:
        try:
            _burn(kind, server, done)
        finally:
            os._exit(0)
    try:
        if pid:
            time.sleep(0.3)
        yield lambda: int.from_bytes(done[:8], "little")
    finally:
        if pid:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def _burn(kind: str, server: Server, done: mmap.mmap) -> None:
    end = time.monotonic() + 60
    signer, number = Signer(server), 0
    requests: list[bytes] = []
    if kind == "s3 get 1M":
        requests = [signer.head("GET", "/bench/large")] * 20
    elif kind == "s3 put 4k":
        requests = [signer.whole("PUT", f"/bench/s{n}", b"x" * 4096) for n in range(20)]
    while time.monotonic() < end:
        if requests:
            number += load(server, requests, 4).done
            done[:8] = number.to_bytes(8, "little")


class Mount:
    def __init__(self, point: Path) -> None:
        self.point = point
        self.folder = point / "names"
        self.folder.mkdir()
        for n in range(NAMES):
            (self.folder / f"n{n}").touch()
        self.made = 0

    def stats(self, seconds: float) -> tuple[float, float]:
        """(stats a second, p99 in seconds)."""
        os.sync()
        if os.geteuid() == 0:
            Path("/proc/sys/vm/drop_caches").write_text("2\n", encoding="ascii")
        taken = []
        end = time.perf_counter() + seconds
        for n in range(NAMES):
            started = time.perf_counter()
            os.stat(self.folder / f"n{n}")
            ended = time.perf_counter()
            taken.append(ended - started)
            if ended > end:
                break
        return len(taken) / sum(taken), sorted(taken)[int(len(taken) * 0.99)]

    def creates(self, seconds: float) -> tuple[float, float]:
        folder = self.point / f"made{self.made}"
        self.made += 1
        folder.mkdir()
        started, n = time.perf_counter(), 0
        while time.perf_counter() < started + seconds:
            fd = os.open(folder / f"f{n}", os.O_WRONLY | os.O_CREAT, 0o644)
            os.write(fd, b"x" * 4096)
            os.close(fd)
            n += 1
        return n / (time.perf_counter() - started), 0.0

    def writes(self, seconds: float) -> tuple[float, float]:
        """MiB a second of fsynced writes."""
        fd = os.open(self.point / "big", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        started, n, block = time.perf_counter(), 0, os.urandom(1 << 20)
        while time.perf_counter() < started + seconds and n < 512:
            os.write(fd, block)
            n += 1
        os.fsync(fd)
        os.close(fd)
        return n / (time.perf_counter() - started), 0.0


Rates = dict[str, dict[str, float]]


def measure(mount: Mount, server: Server, rounds: int, seconds: float) -> tuple[Rates, Rates, dict[str, float]]:
    """(rates of the mount, rates of the door's clients beside them, p99 of stat)"""
    works: dict[str, Callable[[float], tuple[float, float]]] = {
        "stat": mount.stats, "create 4k": mount.creates, "write MiB": mount.writes,
    }  # fmt: skip
    works[IDLE] = lambda seconds: (time.sleep(seconds) or 0.0, 0.0)
    best: Rates = {name: dict.fromkeys(KINDS, 0.0) for name in works if name != IDLE}
    door: Rates = {name: dict.fromkeys(KINDS[2:], 0.0) for name in works}
    slow: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for name, work in works.items():
            for kind in KINDS:
                if name == IDLE and kind not in door[name]:
                    continue
                with beside(kind, server) as done:
                    before, started = done(), time.perf_counter()
                    rate, p99 = work(seconds)
                    served = (done() - before) / (time.perf_counter() - started)
                if name in best:
                    best[name][kind] = max(best[name][kind], rate)
                if kind in door[name]:
                    door[name][kind] = max(door[name][kind], served)
                if name == "stat":
                    slow[kind].append(p99)
    return best, door, {kind: statistics.median(values) for kind, values in slow.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--port", type=int, default=18180)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where all the data goes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="tonfs-doors-", dir=options.folder))
    tonfs = [*TONFS, "--volume", str(base / "volume")]
    point = base / "mount"
    try:
        subprocess.run([*tonfs, "init", "--network", "none"], check=True, capture_output=True)
        made = subprocess.run([*tonfs, "s3", "key", "new", "--json"], check=True, capture_output=True, text=True)
        key = json.loads(made.stdout)
        address = f"127.0.0.1:{options.port}"
        subprocess.run([*tonfs, "mount", str(point), "-o", f"s3={address}"], check=True, capture_output=True)
        server = Server("127.0.0.1", options.port, key["access_key"], key["secret_key"])
        signer = Signer(server)
        for path, body in (("/bench", b""), ("/bench/large", os.urandom(1 << 20))):
            if load(server, [signer.whole("PUT", path, body)], 1).errors:
                raise RuntimeError(f"the S3 door refused to take {path}")
        rates, door, p99 = measure(Mount(point), server, options.rounds, options.seconds)
    finally:
        subprocess.run([*TONFS, "umount", str(point)], check=False, capture_output=True)
        shutil.rmtree(base, ignore_errors=True)
    print(f"{'mount':12}" + "".join(f"{kind:>14}" for kind in KINDS))
    for name, row in rates.items():
        print(f"{name:12}" + "".join(f"{row[k]:>7.0f}/s{row[k] / row['alone']:>5.2f}" for k in KINDS))
    print(f"{'stat p99 ms':12}" + "".join(f"{p99[kind] * 1000:>14.2f}" for kind in KINDS))
    for name, row in door.items():
        print(f"{'door, ' + name:26}{'':14}" + "".join(f"{row[k]:>12.0f}/s" for k in KINDS[2:]))
    print(f"goals: rates at least {RATE_GOAL:.2f} of those alone, p99 of stat below {P99_GOAL * 1000:.0f} ms")
    if options.json:
        out = {"schema": "tonfs.bench.doors/2", "rates": rates, "door": door, "stat_p99_seconds": p99}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(out, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
