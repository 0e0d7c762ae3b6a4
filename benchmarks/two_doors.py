"""What the mount loses while the S3 door of the same volume is under load, and how long a `stat` takes then.

    .venv/bin/python benchmarks/two_doors.py [--rounds 3] [--seconds 2] [--json FILE]

Rounds with a quiet door, with a process beside that only burns a core (what any load costs on this machine), and with
clients of the S3 door come in turn; best rates and the median of the p99s of the rounds are shown. Every `stat` is of
a name that the kernel has not got (as root).
"""

from __future__ import annotations

import argparse
import json
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
NAMES = 3000
RATE_GOAL, P99_GOAL = 2 / 3, 0.020


@contextmanager
def beside(kind: str, server: Server) -> Iterator[None]:
    """A child process that does `kind` until the block ends."""
    pid = os.fork() if kind != "alone" else 0
    if kind != "alone" and pid == 0:
        try:
            _burn(kind, server)
        finally:
            os._exit(0)
    try:
        if pid:
            time.sleep(0.3)
        yield
    finally:
        if pid:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def _burn(kind: str, server: Server) -> None:
    end = time.monotonic() + 60
    signer = Signer(server)
    while time.monotonic() < end:
        if kind == "s3 get 1M":
            load(server, [signer.head("GET", "/bench/large")] * 50, 4)
        elif kind == "s3 put 4k":
            load(server, [signer.whole("PUT", f"/bench/s{n}", b"x" * 4096) for n in range(100)], 4)


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


def measure(
    mount: Mount, server: Server, rounds: int, seconds: float
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    works: dict[str, Callable[[float], tuple[float, float]]] = {
        "stat": mount.stats, "create 4k": mount.creates, "write MiB": mount.writes,
    }  # fmt: skip
    best: dict[str, dict[str, float]] = {name: dict.fromkeys(KINDS, 0.0) for name in works}
    slow: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for name, work in works.items():
            for kind in KINDS:
                with beside(kind, server):
                    rate, p99 = work(seconds)
                best[name][kind] = max(best[name][kind], rate)
                if name == "stat":
                    slow[kind].append(p99)
    return best, {kind: statistics.median(values) for kind, values in slow.items()}


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
        rates, p99 = measure(Mount(point), server, options.rounds, options.seconds)
    finally:
        subprocess.run([*TONFS, "umount", str(point)], check=False, capture_output=True)
        shutil.rmtree(base, ignore_errors=True)
    print(f"{'mount':12}" + "".join(f"{kind:>14}" for kind in KINDS))
    for name, row in rates.items():
        print(f"{name:12}" + "".join(f"{row[k]:>7.0f}/s{row[k] / row['alone']:>5.2f}" for k in KINDS))
    print(f"{'stat p99 ms':12}" + "".join(f"{p99[kind] * 1000:>14.2f}" for kind in KINDS))
    print(f"goals: rates at least {RATE_GOAL:.2f} of those alone, p99 of stat below {P99_GOAL * 1000:.0f} ms")
    if options.json:
        out = {"schema": "tonfs.bench.doors/1", "rates": rates, "stat_p99_seconds": p99}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(out, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
