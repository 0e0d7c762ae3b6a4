"""The unmodified Go daemon on a devnet, and a relay that loses packets."""

from __future__ import annotations

import base64
import json
import os
import random
import selectors
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .kit import JUDGES_DIR, TONFS, Missing, free_port, run

DAEMON = JUDGES_DIR / "go" / "tonutils-storage"
PROVIDER = JUDGES_DIR / "go" / "tonutils-storage-provider"
RELAYED = "127.0.0.2"
"""What is announced when a relay stands in front: the relay has this address, the program behind it 127.0.0.1."""


def need_go() -> None:
    if not DAEMON.exists() or not PROVIDER.exists():
        raise Missing("tonutils-storage (.judges/go; needs Go 1.25 or newer)")


@contextmanager
def devnet(base: Path, *words: str) -> Iterator[dict[str, Any]]:
    """A running devnet's `status --json`; without providers unless `words` ask for some."""
    state = str(base / "devnet")
    run(TONFS, "devnet", "up", "--state", state, "--detach", *(words or ("--providers", "0")))
    try:
        yield json.loads(run(TONFS, "devnet", "status", "--state", state, "--json"))
    finally:
        run(TONFS, "devnet", "down", "--state", state)


def until(what: str, look: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Call `look` until it returns something true. Raises RuntimeError."""
    end = time.monotonic() + seconds
    while not (value := look()):
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)
    return value


def go_key() -> str:
    """A fresh key as Go keeps it: base64 of seed and public key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    return base64.b64encode(key.private_bytes_raw() + key.public_key().public_bytes_raw()).decode()


class Process:
    """A foreign program with its log; dying by itself is a failure."""

    def __init__(self, name: str, folder: Path, argv: list[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.folder = folder
        self.argv = argv
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def check(self) -> None:
        if self._process is None or self._process.poll() is not None:
            tail = self.log.read_text(encoding="utf-8", errors="replace")[-600:]
            raise RuntimeError(f"{self.name} ended by itself: {tail}")

    def end(self, *, hard: bool = False) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        died = process.poll() is not None
        process.kill() if hard else process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
        if died:
            self._process = process
            self.check()


class Daemon(Process):
    """tonutils-storage with its HTTP API. `announce` "": client mode, as behind NAT."""

    def __init__(self, base: Path, name: str, config: str, *, announce: str = "127.0.0.1", piece_size: int = 0) -> None:
        folder = base / name
        self.port = free_port()
        self.udp = free_udp_port()
        words = ["-daemon", "-api", f"127.0.0.1:{self.port}", "-db", str(folder / "db"), "-network-config", config]
        words += ["-verbosity", "2", *(["-force-piece-size", str(piece_size)] if piece_size else [])]
        super().__init__(name, folder, [str(DAEMON), *words])
        (folder / "db").mkdir(exist_ok=True)
        settings = {
            "Version": 1,
            "Key": go_key(),
            "ListenAddr": f"127.0.0.1:{self.udp}",
            "ExternalIP": announce,
            "DownloadsPath": str(folder / "downloads"),
            "NetworkConfigUrl": "",
            "TunnelConfig": None,
        }
        (folder / "db" / "config.json").write_text(json.dumps(settings), encoding="ascii")

    def start(self) -> Daemon:
        self.launch()
        until(f"{self.name} answers", self._answers, 60.0)
        return self

    def _answers(self) -> bool:
        self.check()
        try:
            self.api("list")
        except OSError:
            return False
        return True

    @contextmanager
    def running(self) -> Iterator[Daemon]:
        try:
            yield self.start()
        except BaseException:
            with suppress(Exception):  # the failure that is being reported came first
                self.end()
            raise
        self.end()

    def api(self, name: str, body: dict[str, Any] | None = None, *, timeout: float = 120.0) -> dict[str, Any]:
        """One call; `name` may carry a query. Raises RuntimeError with the daemon's own words."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v1/{name}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                value: dict[str, Any] = json.load(answer)
                return value
        except urllib.error.HTTPError as exc:
            raise RuntimeError(f"{self.name}: {name.split('?')[0]}: {exc.code} {exc.read()[:300]!r}") from None

    def create(self, path: Path, description: str = "") -> str:
        return str(self.api("create", {"path": str(path), "description": description})["bag_id"])

    def add(self, bag: str, *, all_files: bool = True) -> Path:
        """Begin a download; where it lands."""
        path = self.folder / "downloads"
        self.api("add", {"bag_id": bag, "path": str(path), "download_all": all_files, "files": []})
        return path / bag

    def details(self, bag: str) -> dict[str, Any]:
        self.check()
        return self.api(f"details?bag_id={bag}")

    def wait_for(self, bag: str, seconds: float = 90.0) -> None:
        """Until it has the whole bag. Raises RuntimeError."""

        def complete() -> bool:
            value = self.details(bag)
            return bool(value["completed"]) and bool(value["header_loaded"])

        until(f"{self.name} has bag {bag[:8]}", complete, seconds)


def free_udp_port(host: str = "127.0.0.1") -> int:
    """A port free on 127.0.0.1 and on the relay's address."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as two:
            one.bind((host, 0))
            port: int = one.getsockname()[1]
            try:
                two.bind((RELAYED, port))
            except OSError:
                continue
            return port


class BypassedError(RuntimeError):
    """The programs found each other past the relay, so that a run says nothing about losses."""


class Relay:
    """UDP, from 127.0.0.2:PORT to 127.0.0.1:PORT and back, losing a share of the datagrams in each direction."""

    def __init__(self, port: int, loss: float, seed: int = 1) -> None:
        self.passed = self.dropped = 0
        self._loss = loss
        self._rng = random.Random(seed)
        self._target = ("127.0.0.1", port)
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._front.bind((RELAYED, port))
        self._backs: dict[Any, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._front, selectors.EVENT_READ, None)
        self._ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending = True
        self._thread.join(10)
        for one in (self._front, *self._backs.values()):
            one.close()

    def lost(self, share: float) -> str:
        """How many were dropped, for the report. Raises BypassedError when few came; RuntimeError: few were dropped."""
        if self.passed < 500:
            raise BypassedError(f"only {self.passed} datagrams took the way through the relay")
        if self.dropped < (self.passed + self.dropped) * share / 2:
            raise RuntimeError(f"the relay dropped only {self.dropped} of {self.passed} datagrams")
        return f"{self.dropped} of {self.passed + self.dropped}"

    def _run(self) -> None:
        while not self._ending:
            for key, _ in self._selector.select(0.2):
                for _ in range(64):
                    try:
                        data, source = key.fileobj.recvfrom(2048, socket.MSG_DONTWAIT)  # type: ignore[union-attr]
                    except (BlockingIOError, ConnectionRefusedError):
                        break
                    if self._rng.random() < self._loss:
                        self.dropped += 1
                        continue
                    self.passed += 1
                    try:
                        if key.data is None:
                            self._back(source).send(data)
                        else:
                            self._front.sendto(data, key.data)
                    except OSError:
                        self.dropped += 1

    def _back(self, client: Any) -> socket.socket:
        back = self._backs.get(client)
        if back is None:
            back = self._backs[client] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            back.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            back.bind(("127.0.0.1", 0))
            back.connect(self._target)
            self._selector.register(back, selectors.EVENT_READ, client)
        return back


class Ours:
    """`tonfs bag` with a store of its own."""

    def __init__(self, base: Path, name: str, config: str) -> None:
        self.folder = base / name
        self.env = {"TONFS_BAG_STORE": str(self.folder / "store"), "TONFS_GLOBAL_CONFIG": config}
        self._seeder: subprocess.Popen[str] | None = None

    def bag(self, *words: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(run(TONFS, "bag", *words, "--json", env=self.env))
        return value

    def create(self, path: Path, *words: str) -> str:
        return str(self.bag("create", str(path), *words)["bag_id"])

    def get(self, bag: str, *words: str, timeout: str = "90s") -> Path:
        return Path(self.bag("get", bag, "--to", str(self.folder / "got"), "--timeout", timeout, *words)["path"])

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """A command in the background."""
        return subprocess.Popen(
            [TONFS, "bag", *words],
            env={**os.environ, **self.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextmanager
    def seeding(self, *words: str, hard: bool = False) -> Iterator[None]:
        """All bags of the store are served in this block; `hard`: ended by SIGKILL."""
        seeder = self.begin("seed", *words)
        try:
            assert seeder.stdout is not None
            assert seeder.stderr is not None
            if not seeder.stdout.readline():
                raise RuntimeError(f"'bag seed' ended: {seeder.stderr.read()[-400:]}")
            yield
        finally:
            seeder.kill() if hard else seeder.terminate()
            seeder.communicate(timeout=30)
