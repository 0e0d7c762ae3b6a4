"""The S3 door side by side with other servers on the same machine, in one run.

    .venv/bin/python benchmarks/s3.py [--runs 2] [--small 1500] [--keys 20000] [--json F]
    .venv/bin/python benchmarks/s3.py --servers tonfs,rclone --works list_keys --runs 1 --keys 1000000 --laid

Peers: nanio (PyPI), `rclone serve s3` and versitygw. They are taken from .judges/, from PATH, or from --peers FOLDER;
one that is not there is said and left out. Each work runs on every server in turn, the best of the runs counts. tonfs
checks every signature and digest and answers a PUT once the object would survive power loss; rclone and versitygw do
not sync.

`--laid` puts the keys of `list_keys`, empty ones, into the volume and into rclone's folder before the servers start,
and says what the first, the middle and the last pages took. A listing ends after PATIENCE seconds, wherever it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from s3_load import Server, Signer, Tally, load

from tonfs.volume import S3Record, Volume

ROOT = Path(__file__).resolve().parent.parent
ACCESS, SECRET = "AKBENCHMARKBENCHMARK", "benchmarkbenchmarkbenchmarkbenchmark1234"
BUCKET = "bench"
MIB = 1 << 20
PART = 8 * MIB
PATIENCE = 60.0
"""Seconds that a laid listing may take."""


Table = dict[str, dict[str, float]]


@dataclass
class Running:
    name: str
    server: Server
    process: subprocess.Popen[bytes]

    def rss(self) -> float:
        """Peak resident MB of the process and its children."""
        total = 0.0
        for pid in [self.process.pid, *_children(self.process.pid)]:
            try:
                found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
            except OSError:
                continue
            total += int(found[1]) / 1024 if found else 0
        return total

    def cpu(self) -> float:
        """Seconds of CPU used so far."""
        ticks = 0
        for pid in [self.process.pid, *_children(self.process.pid)]:
            try:
                fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            except OSError:
                continue
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    try:
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _names(keys: int) -> Iterator[str]:
    return (f"list/{n // 200:04d}/k{n:06d}" for n in range(keys))


def _lay_volume(folder: Path, keys: int) -> None:
    record = S3Record(etag=hashlib.md5(b"").hexdigest(), content_type="binary/octet-stream")
    volume = Volume(folder)
    bucket = volume.create_bucket(BUCKET.encode(), os.getuid(), os.getgid()).inode
    for name in _names(keys):
        volume.publish(volume.stage(os.getuid(), os.getgid()), bucket, name.encode().split(b"/"), record)
    volume.close()


def _lay_folder(folder: Path, keys: int) -> None:
    for n, name in enumerate(_names(keys)):
        path = folder / BUCKET / name
        if n % 200 == 0:
            path.parent.mkdir(parents=True)
        path.touch()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _find(name: str, folder: Path | None) -> str | None:
    places = [*([folder / name] if folder else []), ROOT / ".judges" / name / "bin" / name, ROOT / ".judges/bin" / name]
    return next((str(p) for p in places if p.exists()), shutil.which(name))


def _tonfs(base: Path, port: int) -> tuple[list[str], dict[str, str], str, str]:
    tonfs = [sys.executable, "-m", "tonfs", "--volume", str(base / "volume")]
    subprocess.run([*tonfs, "init", "--network", "none"], check=True, capture_output=True)
    made = subprocess.run([*tonfs, "s3", "key", "new", "--json"], check=True, capture_output=True, text=True)
    key = json.loads(made.stdout)
    return [*tonfs, "s3", "serve", "--listen", f"127.0.0.1:{port}"], {}, key["access_key"], key["secret_key"]


def _nanio(program: str, base: Path, port: int) -> tuple[list[str], dict[str, str], str, str]:
    words = ["serve", "--data-dir", str(base), "--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    return (
        [program, *words, "--log-level", "error"],
        {"NANIO_ACCESS_KEY": ACCESS, "NANIO_SECRET_KEY": SECRET},
        ACCESS,
        SECRET,
    )


def _rclone(program: str, base: Path, port: int) -> tuple[list[str], dict[str, str], str, str]:
    words = ["serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{ACCESS},{SECRET}", str(base)]
    return [program, *words, "--config", "/dev/null"], {}, ACCESS, SECRET


def _versitygw(program: str, base: Path, port: int) -> tuple[list[str], dict[str, str], str, str]:
    words = ["--access", ACCESS, "--secret", SECRET, "--port", f"127.0.0.1:{port}", "--quiet", "posix", str(base)]
    return [program, *words], {}, ACCESS, SECRET


@contextmanager
def serving(name: str, base: Path, peers: Path | None, laid: int = 0) -> Iterator[Running | None]:
    """`laid`: keys that are there before it starts."""
    port = _free_port()
    base.mkdir()
    if name == "tonfs":
        command, env, access, secret = _tonfs(base, port)
        if laid:
            _lay_volume(base / "volume", laid)
    else:
        program = _find(name, peers)
        if program is None:
            print(f"{name} is not here and is left out", flush=True)
            yield None
            return
        make = {"nanio": _nanio, "rclone": _rclone, "versitygw": _versitygw}[name]
        command, env, access, secret = make(program, base, port)
        if laid and name == "rclone":
            _lay_folder(base, laid)
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env={**os.environ, **env}, stdout=quiet, stderr=quiet)
    try:
        end = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if time.monotonic() > end or process.poll() is not None:
                print(f"{name} does not start and is left out", flush=True)
                yield None
                return
            time.sleep(0.1)
        yield Running(name, Server("127.0.0.1", port, access, secret), process)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Work:
    """The pieces of work on one server; each returns (units, seconds, errors)."""

    def __init__(self, running: Running, small: int, keys: int, *, laid: bool = False) -> None:
        self.running = running
        self.server = running.server
        self.small = small
        self.keys = keys
        self.body = os.urandom(4096)
        self.large = os.urandom(64 * MIB)
        self.large_sha = hashlib.sha256(self.large).hexdigest()
        self.part_sha = hashlib.sha256(self.large[:PART]).hexdigest()
        self.run = 0
        self.laid = self.listed = laid
        if not laid:
            self._send("PUT", f"/{BUCKET}")

    def _send(self, method: str, path: str, body: bytes = b"", **words: Mapping[str, str]) -> bytes:
        return self._load([Signer(self.server).whole(method, path, body, **words)], 1, keep=True).bodies[0]

    def _load(self, requests: list[bytes], concurrency: int, *, head: bool = False, keep: bool = False) -> Tally:
        tally = load(self.server, requests, concurrency, head=head, keep=keep)
        if tally.errors:
            print(f"  {self.running.name}: {tally.errors} errors, the first: {tally.first_error[:200]!r}", flush=True)
        return tally

    def _small(self, n: int) -> str:
        return f"/{BUCKET}/small/{n % 16:02d}/object-{n:06d}"

    def put_4k(self) -> tuple[float, float]:
        signer = Signer(self.server)
        self.run += 1
        tally = self._load([signer.whole("PUT", self._small(n), self.body) for n in range(self.small)], 16)
        return tally.done, tally.seconds

    def get_4k(self) -> tuple[float, float]:
        signer = Signer(self.server)
        tally = self._load([signer.head("GET", self._small(n % self.small)) for n in range(4 * self.small)], 16)
        return tally.done, tally.seconds

    def head_4k(self) -> tuple[float, float]:
        signer = Signer(self.server)
        requests = [signer.head("HEAD", self._small(n % self.small)) for n in range(4 * self.small)]
        tally = self._load(requests, 16, head=True)
        return tally.done, tally.seconds

    def put_64m(self) -> tuple[float, float]:
        request = Signer(self.server).head(
            "PUT", f"/{BUCKET}/large", length=len(self.large), payload=self.large_sha
        )  # fmt: skip
        tally = self._load([request + self.large], 1)
        return 64 * tally.done, tally.seconds

    def get_64m(self) -> tuple[float, float]:
        tally = self._load([Signer(self.server).head("GET", f"/{BUCKET}/large")] * 4, 1)
        return tally.received / MIB, tally.seconds

    def multipart_256m(self) -> tuple[float, float]:
        path = f"/{BUCKET}/multi"
        started = time.perf_counter()
        begun = self._send("POST", path, query={"uploads": ""})
        upload = re.search(rb"<UploadId>([^<]+)</UploadId>", begun)
        if upload is None:
            return 0, 1
        name = upload[1].decode()
        signer = Signer(self.server)
        part = self.large[:PART]
        etag = hashlib.md5(part).hexdigest()
        count = 256 * MIB // PART
        requests = [
            signer.head("PUT", path, {"partNumber": str(n), "uploadId": name}, length=PART, payload=self.part_sha)
            + part
            for n in range(1, count + 1)
        ]
        tally = self._load(requests, 4)
        listed = "".join(
            f"<Part><PartNumber>{n}</PartNumber><ETag>&quot;{etag}&quot;</ETag></Part>" for n in range(1, count + 1)
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        self._send("POST", path, body, query={"uploadId": name})
        return PART / MIB * tally.done, time.perf_counter() - started

    def many_parts(self, clients: int) -> None:
        """Each client sends one part, all at once."""
        path = f"/{BUCKET}/many"
        found = re.search(rb"<UploadId>([^<]+)</UploadId>", self._send("POST", path, query={"uploads": ""}))
        name = found[1].decode() if found else ""
        signer, part = Signer(self.server), self.large[:PART]
        words = [{"partNumber": str(n), "uploadId": name} for n in range(1, clients + 1)]
        requests = [signer.head("PUT", path, query, length=PART, payload=self.part_sha) + part for query in words]
        self._load(requests, clients)
        self._send("DELETE", path, query={"uploadId": name})

    def before_list_keys(self) -> None:
        if not self.listed:
            signer = Signer(self.server)
            self._load([signer.whole("PUT", f"/{BUCKET}/{name}", b"x") for name in _names(self.keys)], 8)
            self.listed = True

    def list_keys(self) -> tuple[float, float]:
        """All keys of one prefix, 1000 a page."""
        started = time.perf_counter()
        token: dict[str, str] = {}
        count = 0
        pages = [started]
        while not self.laid or pages[-1] < started + PATIENCE:
            query = {"list-type": "2", "prefix": "list/", "max-keys": "1000", **token}
            page = self._send("GET", f"/{BUCKET}", query=query)
            count += page.count(b"<Key>")
            pages.append(time.perf_counter())
            found = re.search(rb"<NextContinuationToken>([^<]+)<", page)
            if found is None:
                break
            token = {"continuation-token": found[1].decode()}
        if count != self.keys:
            print(f"  {self.running.name}: listed {count} of {self.keys} keys", flush=True)
        if self.laid:
            took = [1000 * (end - begin) for begin, end in pairwise(pages)]
            middle = len(took) // 2
            three = [f"{statistics.median(part):.1f}" for part in (took[:9], took[middle:][:9], took[-9:])]
            print(
                f"  {self.running.name}: {len(took)} pages, ms of the first, middle, last: {', '.join(three)}",
                flush=True,
            )
        return count, pages[-1] - started


ORDER = ("put_4k", "get_4k", "head_4k", "put_64m", "get_64m", "multipart_256m", "list_keys")
UNITS = {"put_64m": "MiB/s", "get_64m": "MiB/s", "multipart_256m": "MiB/s", "list_keys": "keys/s"}


def measure(servers: list[str], options: argparse.Namespace, base: Path) -> tuple[Table, dict[str, float], Table]:
    """(rates by work and server, peak RSS by server, CPU microseconds a unit by work and server)."""
    best: Table = {name: {} for name in ORDER}
    cost: Table = {name: {} for name in ORDER}
    peak: dict[str, float] = {}
    with ExitStack() as stack:
        works: list[Work] = []
        for name in servers:
            laid = options.keys if options.laid else 0
            running = stack.enter_context(serving(name, base / name, options.peers, laid))
            if running is not None:
                works.append(Work(running, options.small, options.keys, laid=options.laid))
        for _ in range(options.runs):
            for name in options.works:
                for work in works:
                    body: Callable[[], tuple[float, float]] = getattr(work, name)
                    getattr(work, f"before_{name}", lambda: None)()
                    before = work.running.cpu()
                    try:
                        units, seconds = body()
                    except Exception as exc:  # a peer that cannot do this
                        print(f"  {work.running.name}: {name} failed: {exc!r}", flush=True)
                        units, seconds = 0.0, 1.0
                    who = work.running.name
                    if units / seconds > best[name].get(who, 0.0):
                        best[name][who] = units / seconds
                        cost[name][who] = 1e6 * (work.running.cpu() - before) / units
        for work in works:
            peak[work.running.name] = work.running.rss()
        for work in works:
            if work.running.name == "tonfs" and options.clients:
                work.many_parts(options.clients)
                print(
                    f"tonfs: peak RSS {work.running.rss():.0f} MiB with {options.clients} clients sending 8 MiB parts"
                )
    return best, peak, cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--small", type=int, default=1500)
    parser.add_argument("--keys", type=int, default=20_000)
    parser.add_argument("--laid", action="store_true", help="the keys are there before the servers start")
    parser.add_argument("--servers", default="tonfs,nanio,rclone,versitygw")
    parser.add_argument("--works", type=lambda text: text.split(","), default=list(ORDER))
    parser.add_argument("--peers", type=Path, help="folder with the peers' programs")
    parser.add_argument("--clients", type=int, default=100, help="at once, for the memory that tonfs takes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the servers end with us
    servers = options.servers.split(",")
    base = Path(tempfile.mkdtemp(prefix="tonfs-bench-s3-", dir="/var/tmp"))
    try:
        best, peak, cost = measure(servers, options, base)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    present = [name for name in servers if name in peak]
    print(f"{'work':16} {'unit':7} " + " ".join(f"{name:>10}" for name in present) + "   (CPU µs a unit)")
    for name in options.works:
        row = " ".join(f"{best[name].get(who, 0):>10.0f}" for who in present)
        costs = " ".join(f"{cost[name].get(who, 0):.0f}" for who in present)
        print(f"{name:16} {UNITS.get(name, '/s'):7} {row}   ({costs})")
    print(f"{'peak RSS':16} {'MiB':7} " + " ".join(f"{peak[who]:>10.0f}" for who in present))
    if options.json:
        rows = [{"work": n, "unit": UNITS.get(n, "/s"), **{w: round(best[n].get(w, 0)) for w in present}}
                for n in options.works]  # fmt: skip
        out = {"schema": "tonfs.bench.s3/1", "rows": rows, "peak_rss_mib": {w: round(peak[w]) for w in present}}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(out, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
