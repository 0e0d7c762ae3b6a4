"""The storage providers of a devnet: one operating-system process each, kept running, broken on request.

A provider that ends by itself is started again after a pause that grows. The fault `vanish` kills it and keeps it away
until another fault (or `none`) is set; all other faults are told to the process over its control socket, and told
again after a restart. When this process dies, even by kill -9, the kernel ends the providers.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from ..chain.address import friendly
from ..chain.wallet import Version, Wallet
from ..config import render
from ..control.client import ControlClient
from ..control.process import Child
from ..errors import NotFound, NotRunning, TonfsError, UsageError
from ..ids import Address
from ..log import get_logger
from ..network.keys import load_or_create
from .config_file import write_atomically
from .state import LOOPBACK, NO_FAULT, ProviderState, StateDir

log = get_logger(__name__)

VANISH: Final = "vanish"
FAULTS: Final = ("silent", "slow", "hash-only", "wrong-bytes", VANISH, NO_FAULT)

MIN_SPAN: Final = 60
MAX_SPAN: Final = 30 * 86400
SPACE: Final = 4 << 30
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
SETTLED: Final = 60.0
"""A process that lived this long is not failing at start: the pause begins anew."""
STOP_TIMEOUT: Final = 10.0
START_TIMEOUT: Final = 60.0
ASK_TIMEOUT: Final = 10.0

Command = Callable[[Path], list[str]]
"""Config file -> argument list of a provider process."""


def provider_command(config: Path) -> list[str]:
    return [sys.executable, "-m", "tonfs", "provider", "run", "--config", str(config)]


async def ask(socket: Path, method: str, params: dict[str, Any] | None = None, *, who: str) -> dict[str, Any]:
    """One call to a process's control socket. Raises NotRunning, TimedOut, or what it answers."""
    outcome: dict[str, Any] | TonfsError = {}
    async with trio.open_nursery() as nursery:  # errors leave it as they are, not as a group
        client = ControlClient(socket, who=who)
        await nursery.start(client.run)
        try:
            outcome = await client.call(method, params, timeout=ASK_TIMEOUT)
        except TonfsError as exc:
            outcome = exc
        nursery.cancel_scope.cancel()
    if isinstance(outcome, TonfsError):
        raise outcome
    return outcome


@dataclass
class Provider:
    """One provider: its place on disk, its keys, its process. `phase`: stopped, starting, running, away, pausing."""

    state: ProviderState
    directory: Path
    key: bytes
    address: Address
    child: Child
    fault: str
    phase: str = "stopped"
    restarts: int = 0
    changed: trio.Event = field(default_factory=trio.Event)
    """Set, and replaced, when the fault changes."""
    up: trio.Event = field(default_factory=trio.Event)
    """Set once it answered for the first time, or was found to be sent away."""

    @property
    def name(self) -> str:
        return f"provider {self.state.number}"

    @property
    def socket(self) -> Path:
        return self.directory / "provider.sock"

    def summary(self) -> dict[str, Any]:
        """For `devnet status --json` (reference cli 2)."""
        return {
            "number": self.state.number,
            "key": self.key.hex(),
            "address": friendly(self.address, bounceable=False),
            "port": self.state.port,
            "pid": self.child.pid,
            "fault": self.fault,
            "phase": self.phase,
            "rate": self.state.rate,
            "restarts": self.restarts,
        }


def prepare(state_dir: StateDir, row: ProviderState, command: Command = provider_command) -> Provider:
    """Make a provider's directory: seed file (0600, kept), config.toml (written anew), log file."""
    directory = state_dir.provider(row.number)
    bags = directory / "bags"
    bags.mkdir(parents=True, exist_ok=True)
    seed_file = directory / "seed"
    key = load_or_create(seed_file)
    config = directory / "config.toml"
    values = {
        "seed_file": str(seed_file),
        "listen": f"{LOOPBACK}:{row.port}",
        "announce_ip": LOOPBACK,
        "global_config": str(state_dir.global_config),
        "rate_per_mb_day": row.rate,
        "min_span": MIN_SPAN,
        "max_span": MAX_SPAN,
        "space": SPACE,
        "max_bag_size": SPACE,
        "directory": str(directory),
    }
    write_atomically(config, render(values))
    wallet = Wallet.from_seed(key.seed.reveal(), Version.V3R2)
    child = Child(f"provider {row.number}", command(config), directory / "provider.log")
    return Provider(row, directory, key.public_key, wallet.address, child, row.fault)


class Supervisor:
    """Runs all providers of a devnet until cancelled."""

    def __init__(self, providers: Sequence[Provider], *, on_fault: Callable[[int, str], None] | None = None) -> None:
        self.providers = list(providers)
        self._on_fault = on_fault

    def find(self, word: str) -> Provider:
        """By number (from 1) or by the beginning of its key, at least 4 digits. Raises NotFound, UsageError."""
        text = word.strip().lower()
        found = [p for p in self.providers if str(p.state.number) == text]
        if not found and len(text) >= 4:
            found = [p for p in self.providers if p.key.hex().startswith(text)]
        if len(found) > 1:
            raise UsageError(f"{word!r} is the beginning of {len(found)} provider keys.", hint="Give more digits.")
        if not found:
            raise NotFound(f"There is no provider {word!r}.", hint="'tonfs devnet status' lists numbers and keys.")
        return found[0]

    async def wait_up(self) -> None:
        """Until every provider has answered once (those sent away do not count)."""
        for provider in self.providers:
            await provider.up.wait()

    async def set_fault(self, provider: Provider, kind: str) -> None:
        """Switch a fault on, or all off with `none`. Raises UsageError, NotRunning, TimedOut."""
        if kind not in FAULTS:
            raise UsageError(f"There is no fault {kind!r}.", hint=f"Faults are: {', '.join(FAULTS)}.")
        before, provider.fault = provider.fault, kind
        try:
            if kind == VANISH:
                pid = provider.child.pid
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
            elif before != VANISH and provider.phase == "running":
                await ask(provider.socket, "fault", {"kind": kind}, who=provider.name)
        except BaseException:
            provider.fault = before
            raise
        if self._on_fault is not None:
            self._on_fault(provider.state.number, kind)
        log.info("fault set", provider=provider.state.number, fault=kind)
        provider.changed.set()
        provider.changed = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start all, keep them running; stop all when cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                for provider in self.providers:
                    nursery.start_soon(self._live, provider)
                task_status.started()
        finally:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    for provider in self.providers:
                        nursery.start_soon(self._stop, provider)

    @staticmethod
    async def _stop(provider: Provider) -> None:
        await provider.child.stop(timeout=STOP_TIMEOUT)
        provider.phase = "stopped"

    async def _live(self, provider: Provider) -> None:
        pause = FIRST_PAUSE
        while True:
            if provider.fault == VANISH:
                provider.phase = "away"
                provider.up.set()
                await provider.changed.wait()
                continue
            started = trio.current_time()
            status = await self._once(provider)
            if provider.fault == VANISH:
                continue
            if trio.current_time() - started > SETTLED:
                pause = FIRST_PAUSE
            log.warning("provider ended and is started again", provider=provider.state.number, status=status)
            provider.phase = "pausing"
            provider.restarts += 1
            with trio.move_on_after(pause):
                await provider.changed.wait()
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _once(self, provider: Provider) -> int:
        """One life of the process; its exit status."""
        provider.phase = "starting"
        provider.child.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._greet, provider)
            status = await provider.child.wait()
            nursery.cancel_scope.cancel()
        return status

    async def _greet(self, provider: Provider) -> None:
        """Wait until it answers; if it does not know its fault (any more), tell it."""
        try:
            answer = await provider.child.ready(provider.socket, timeout=START_TIMEOUT, method="status")
            if answer.get("fault", NO_FAULT) != provider.fault != VANISH:
                await ask(provider.socket, "fault", {"kind": provider.fault}, who=provider.name)
            provider.phase = "running"
            provider.up.set()
        except NotRunning as exc:
            if provider.child.pid is not None:
                log.warning("provider does not answer", provider=provider.state.number, reason=exc.message)
        except TonfsError as exc:
            log.warning("provider did not take its fault", provider=provider.state.number, reason=exc.message)
