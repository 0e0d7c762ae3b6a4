"""The state directory of a devnet: who holds it, which ports and prices it once chose, which faults are on.

    control.sock  chain.db  global.config.json  devnet.json  devnet.pid  keys/  log/  providers/<n>/

`devnet.pid` is locked (flock) by the process that runs the devnet; the lock ends with that process, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from ..control.pidfile import PidFile
from ..errors import Busy, Damaged, UsageError
from ..system import from_os
from .config_file import write_atomically

LOOPBACK: Final = "127.0.0.1"
SCHEMA: Final = "tonfs.devnet-state/1"
DEFAULT_PROVIDERS: Final = 7
PORTS: Final = range(20_000, 32_000)
"""Chosen from below the range that Linux hands out for outgoing connections, so that they stay free between runs."""
NO_FAULT: Final = "none"


@dataclass(frozen=True)
class ProviderState:
    """What is chosen once for a provider. `rate`: nanoTON per MB and day, another one for each."""

    number: int
    port: int
    rate: int
    fault: str = NO_FAULT


@dataclass(frozen=True)
class DevnetState:
    """`devnet.json`."""

    lite_port: int
    dht_port: int
    providers: tuple[ProviderState, ...] = field(default=())


class StateDir:
    """Paths and the small state file."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.control = self.path / "control.sock"
        self.chain_db = self.path / "chain.db"
        self.global_config = self.path / "global.config.json"
        self.keys = self.path / "keys"
        self.log = self.path / "log" / "devnet.log"
        self._pid_file = PidFile(self.path / "devnet.pid")
        self._file = self.path / "devnet.json"

    def provider(self, number: int) -> Path:
        return self.path / "providers" / str(number)

    def create(self) -> None:
        """Make what is missing. Raises Refused, NoSpace, UsageError, TonfsError when the directory cannot be made."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.keys.mkdir(mode=0o700, exist_ok=True)
            self.log.parent.mkdir(exist_ok=True)
        except OSError as exc:
            text = f"The state directory {self.path} cannot be made"
            if isinstance(exc, NotADirectoryError | FileExistsError):
                raise UsageError(f"{text}: {exc.strerror}.") from None
            raise from_os(exc, text) from None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the state directory. Raises Busy when another process does."""
        self.create()
        hint = f"'tonfs devnet down --state {self.path}' stops it."
        with self._pid_file.lock(f"A devnet already runs in {self.path}", hint):
            yield

    def held(self) -> bool:
        """Does a process run this devnet?"""
        return self._pid_file.held()

    def pid(self) -> int | None:
        """Pid of the process that runs it, or ran it last."""
        return self._pid_file.pid()

    def running(self, pid: int | None) -> bool:
        """Is it held, or is the process that held it still on its way out? A zombie has gone."""
        if self.held():
            return True
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
        return b"devnet" in line and stat.rpartition(")")[2].split()[0] != "Z"

    def load(self) -> DevnetState | None:
        """None when this is a new directory. Raises Damaged."""
        try:
            value = json.loads(self._file.read_text(encoding="utf-8"))
            if value.pop("schema") != SCHEMA:
                raise ValueError("another schema")
            providers = tuple(ProviderState(**item) for item in value.pop("providers"))
            return DevnetState(providers=providers, **value)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise Damaged(f"{self._file} is not a devnet's state: {exc}", hint="Delete the directory.") from None

    def save(self, state: DevnetState) -> None:
        write_atomically(self._file, json.dumps({"schema": SCHEMA, **asdict(state)}, indent=1) + "\n")


def _free(port: int) -> bool:
    """Free for TCP and UDP on loopback."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past connections do not count
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                return False
    return True


class PortChooser:
    """Hands out free loopback ports, each once. Somebody may take one between the choice and its use; then the
    start fails and the next one chooses again."""

    def __init__(self, generator: random.Random | None = None) -> None:
        self._random = generator or random.Random()
        self._given: set[int] = set()

    def keep(self, port: int) -> int:
        """The port itself if it is free, else another."""
        if port and port not in self._given and _free(port):
            self._given.add(port)
            return port
        return self.choose()

    def choose(self) -> int:
        """Raises Busy when no port is free."""
        for _ in range(1000):
            port = self._random.choice(PORTS)
            if port not in self._given and _free(port):
                self._given.add(port)
                return port
        raise Busy("There is no free port on 127.0.0.1.")


def rate_of(number: int) -> int:
    """Price of provider `number` (from 1), nanoTON per MB and day: 60 000 to 140 000, different for the first nine."""
    return 60_000 + number * 5 % 9 * 10_000


def plan(old: DevnetState | None, providers: int | None, ports: PortChooser) -> DevnetState:
    """The state to start with: earlier choices are kept, what is missing is chosen.

    `providers=None` keeps the number; fewer than before leaves the others' directories alone and forgets them here.
    """
    count = providers if providers is not None else len(old.providers) if old is not None else DEFAULT_PROVIDERS
    known = {p.number: p for p in old.providers} if old is not None else {}
    chosen = DevnetState(
        lite_port=ports.keep(old.lite_port if old else 0), dht_port=ports.keep(old.dht_port if old else 0)
    )
    rows = []
    for number in range(1, count + 1):
        row = known.get(number, ProviderState(number, 0, rate_of(number)))
        rows.append(replace(row, port=ports.keep(row.port)))
    return replace(chosen, providers=tuple(rows))
