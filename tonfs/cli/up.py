"""`tonfs up`: everything a user needs on one machine, supervised, with a live table; `tonfs down` ends it.

Order: devnet (when the volume's network is the devnet), front with mount and S3, agent. Stopping is the reverse.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import click
import trio
from rich.console import Console
from rich.live import Live

from ..config import CONFIG_NAME, Settings
from ..control import call_sync
from ..control.pidfile import up_file
from ..control.process import Child, keep_running, start_failure
from ..errors import Busy, NotRunning, TimedOut, TonfsError
from ..ids import NANO
from ..log import get_logger
from .common import Context, pass_context, volume_option
from .foreground import until_signal
from .status import gather, render

log = get_logger(__name__)

START_TIMEOUT: Final = 90.0
RUNS: Final = "tonfs already runs for this volume"
STOP_IT: Final = "'tonfs down' stops it."
WALLET_FILL: Final = 2000 * NANO
"""What the devnet's faucet gives a wallet that holds less than a tenth of it."""


def devnet_state(volume: Path, settings: Settings) -> Path:
    return Path(settings.devnet_state).expanduser() if settings.devnet_state else volume / "devnet"


def answers(path: Path) -> bool:
    try:
        call_sync(path, "ping", who="process", timeout=2.0)
    except TonfsError:
        return False
    return True


class Stack:
    """The processes of one volume, started in order and stopped in reverse."""

    def __init__(self, volume: Path, settings: Settings, mount: Path, s3: str) -> None:
        self.volume = volume
        self.settings = settings
        self.mount = mount
        self.s3 = s3
        self.stopping = trio.Event()

    def _child(self, name: str, *words: str) -> Child:
        argv = [sys.executable, "-m", "tonfs", "--volume", str(self.volume), *words]
        return Child(name, argv, self.volume / "log" / f"{name}.log")

    @asynccontextmanager
    async def _running(self, nursery: trio.Nursery, child: Child, socket: Path) -> AsyncIterator[None]:
        child.start()
        try:
            await child.ready(socket, timeout=START_TIMEOUT)
            nursery.start_soon(lambda: keep_running(child, stopping=self.stopping))
            yield
        finally:
            self.stopping.set()
            with trio.CancelScope(shield=True):
                await child.stop(timeout=60.0)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Everything up inside, everything down and gone after."""
        run = self.volume / "run"
        async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
            if self.settings.network == "devnet":
                state = devnet_state(self.volume, self.settings)
                if not answers(state / "control.sock"):
                    child = self._child("devnet", "devnet", "up", "--state", str(state))
                    await stack.enter_async_context(self._running(nursery, child, state / "control.sock"))
                await trio.to_thread.run_sync(fill_wallet, self.volume, state)
            options = f"s3={self.s3}" if self.s3 else ""
            words = ["mount", str(self.mount), "--foreground", *(["-o", options] if options else [])]
            await stack.enter_async_context(self._running(nursery, self._child("front", *words), run / "front.sock"))
            if self.settings.network != "none":
                child = self._child("agent", "agent", "run")
                await stack.enter_async_context(self._running(nursery, child, run / "agent.sock"))
            yield
            await stack.aclose()
            nursery.cancel_scope.cancel()


def fill_wallet(volume: Path, state: Path) -> None:
    """On the devnet coins cost nothing: keep the volume's wallet filled."""
    from ..chain.wallet import Wallet

    words = (volume / "keys" / "words").read_text(encoding="utf-8").split()
    address = Wallet.from_words(words).address
    reply = call_sync(state / "control.sock", "balance", {"address": address}, who="devnet", timeout=30.0)
    if int(reply["balance"]) < WALLET_FILL // 10:
        params = {"address": address, "amount": WALLET_FILL}
        call_sync(state / "control.sock", "faucet", params, who="devnet", timeout=30.0)


async def _show(volume: Path, network: str, console: Console) -> None:
    """The live table on a terminal, one line every ten seconds elsewhere."""
    if console.is_terminal and not os.environ.get("NO_COLOR"):
        with Live(console=console, auto_refresh=False, screen=False) as live:
            while True:
                status = await trio.to_thread.run_sync(gather, volume, network)
                live.update(render(status), refresh=True)
                await trio.sleep(1.0)
    while True:
        status = await trio.to_thread.run_sync(gather, volume, network)
        good = sum(p["state"] == "active" for pack in status["packs"] for p in pack["placements"])
        wanted = sum(pack["wanted"] for pack in status["packs"])
        files = status["files"]
        click.echo(
            f"files {files['total']} ({files['dirty']} dirty, {files['proven']} proven)  "
            f"packs {len(status['packs'])}  replicas {good} of {wanted}",
            err=True,
        )
        await trio.sleep(10.0)


async def _supervise(stack: Stack, console: Console) -> None:
    """Holds the volume's `up.pid` while it runs. Raises Busy."""
    ready_file = stack.volume / "run" / "up.ready"
    ready_file.parent.mkdir(parents=True, exist_ok=True)
    with up_file(stack.volume).lock(RUNS, STOP_IT):
        await _run(stack, ready_file, console)
    click.echo("Everything is stopped; the files are safe on this volume.", err=True)


async def _run(stack: Stack, ready_file: Path, console: Console) -> None:
    async with trio.open_nursery() as nursery:

        def stop() -> None:
            click.echo("Stopping: agent, mount, network …", err=True)
            nursery.cancel_scope.cancel()

        await nursery.start(until_signal, stop)
        try:
            click.echo(f"Starting tonfs on volume {stack.volume} …", err=True)
            async with stack.run():
                s3 = f", S3 at http://{stack.s3}" if stack.s3 else ""
                click.echo(f"Mounted at {stack.mount}{s3}. Ctrl-C stops everything in order.", err=True)
                ready_file.write_text("ready\n", encoding="ascii")
                await _show(stack.volume, stack.settings.network, console)
        finally:
            ready_file.unlink(missing_ok=True)


def _detach(context: Context, directory: Path, s3: str) -> None:
    """Start `up` in a session of its own and return when it is ready."""
    volume = context.volume
    log_path = volume / "log" / "up.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    ready_file = volume / "run" / "up.ready"
    ready_file.unlink(missing_ok=True)  # of one that was killed
    argv = [sys.executable, "-m", "tonfs", "--volume", str(volume), "up", str(directory), "--s3", s3]
    with log_path.open("ab") as output:
        before = output.tell()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    end = time.monotonic() + 3 * START_TIMEOUT
    while time.monotonic() < end:
        if ready_file.exists():
            return
        if process.poll() is not None:
            raise start_failure("tonfs", log_path, before)
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    raise TimedOut("tonfs did not start in time.", hint=f"Its log is {log_path}.")


@click.command(help="All in one: network, mount, S3 and agent; Ctrl-C stops them in order.")
@click.argument("directory", required=False, type=click.Path(path_type=Path, readable=False))
@click.option("--detach", is_flag=True, help="Return when everything runs; 'tonfs down' stops it.")
@click.option("--s3", metavar="HOST:PORT", help="Where S3 listens; '' for none. Default: from config.toml.")
@volume_option
@pass_context
def command(context: Context, directory: Path | None, detach: bool, s3: str | None) -> None:
    from .init import make_volume, show_words

    context.configure_log()
    volume = context.volume
    if not (volume / CONFIG_NAME).exists():
        words = make_volume(volume, network="devnet")
        click.echo(f"Made a new volume on the devnet at {volume}.", err=True)
        show_words(words)
    settings = context.settings()
    mount = (directory or Path.home() / "tonfs").absolute()
    listen = settings.s3.listen if s3 is None else s3
    if up_file(volume).held():
        raise Busy(f"{RUNS} (process {up_file(volume).pid()}).", hint=STOP_IT)
    if detach:
        _detach(context, mount, listen)
        click.echo(f"tonfs runs; mounted at {mount}. 'tonfs down' stops it.", err=True)
        return
    trio.run(_supervise, Stack(volume, settings, mount, listen), Console(stderr=True))


def stop(volume: Path, timeout: float = 180.0) -> dict[str, Any]:
    """Stop a running `tonfs up` and wait for its end. Raises NotRunning, TimedOut."""
    pid = up_file(volume).pid() if up_file(volume).held() else None
    if pid is None:
        raise NotRunning(f"tonfs does not run for the volume {volume}.")
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if not up_file(volume).held():
            return {"pid": pid}
        time.sleep(0.1)
    raise TimedOut(f"Process {pid} did not stop within {timeout:g} s.", hint="Look at the log files of the volume.")
