"""`tonfs devnet`: the local network, its processes and its levers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import trio
from rich.console import Console

from ..chain.address import friendly
from ..config import state_home
from ..control import call_sync
from ..control.process import PARENT_VARIABLE, die_with_parent, start_failure
from ..devnet.state import StateDir
from ..errors import NotRunning, TimedOut, TonfsError, UsageError
from ..ids import format_ton, parse_ton
from .common import Context, emit, json_option, parse_duration, pass_context, show_table
from .foreground import until_signal

START_TIMEOUT: Final = 120.0
STOP_TIMEOUT: Final = 60.0
CALL_TIMEOUT: Final = 90.0


def _state_option(function: Any) -> Any:
    return click.option(
        "--state",
        type=click.Path(path_type=Path, file_okay=False),
        help="State directory. Default: devnet-state in the data directory of tonfs.",
    )(function)


def _directory(state: Path | None) -> StateDir:
    return StateDir(state if state is not None else state_home() / "devnet-state")


def _call(state: StateDir, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    try:
        return call_sync(state.control, method, params, who="devnet", timeout=CALL_TIMEOUT)
    except NotRunning:
        raise NotRunning(
            f"No devnet runs in {state.path}.", hint=f"Start it with 'tonfs devnet up --state {state.path}'."
        ) from None


@click.group(help="The local network: chain, DHT, storage providers.")
def command() -> None:
    pass


@command.command("up", help="Start the network; Ctrl-C stops it in order.")
@_state_option
@click.option("--providers", type=click.IntRange(0, 64), help="Number of storage providers. Default: as before, or 7.")
@click.option("--block-interval", metavar="DURATION", default="1.5s", help="Time from block to block (1.5s).")
@click.option("--detach", is_flag=True, help="Return when the network answers; 'tonfs devnet down' stops it.")
@pass_context
def up(context: Context, state: Path | None, providers: int | None, block_interval: str, detach: bool) -> None:
    directory = _directory(state)
    interval = parse_duration(block_interval)
    if not 0.05 <= interval <= 3600:
        raise UsageError("A block interval is 0.05 seconds to one hour.", hint="1.5s to 3s suit all TON software.")
    if detach:
        _detach(context, directory, providers, block_interval)
        return
    die_with_parent()
    context.configure_log()
    trio.run(_run, directory, providers, interval, Console(stderr=True))


def _detach(context: Context, state: StateDir, providers: int | None, block_interval: str) -> None:
    """Start `up` in a session of its own and return when it is ready."""
    state.create()
    with state.lock():
        pass  # Busy, if it runs already
    argv = [sys.executable, "-m", "tonfs", "--log-format", context.log_format, *(["-v"] * context.verbose)]
    argv += ["devnet", "up", "--state", str(state.path), "--block-interval", block_interval]
    argv += [] if providers is None else ["--providers", str(providers)]
    env = {k: v for k, v in os.environ.items() if k != PARENT_VARIABLE}  # it outlives whoever asked for it
    with state.log.open("ab") as output:
        before = output.tell()
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, start_new_session=True
        )
    end = time.monotonic() + START_TIMEOUT
    while time.monotonic() < end:
        if process.poll() is not None:
            raise start_failure("The devnet", state.log, before)
        try:
            if call_sync(state.control, "ping", who="devnet", timeout=5.0)["ready"]:
                click.echo(_banner(_call(state, "status")), err=True)
                return
        except TonfsError:
            pass  # not yet
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    raise TimedOut("The devnet did not start in time.", hint=f"Its log is {state.log}.")


def _banner(status: dict[str, Any]) -> str:
    running = sum(p["phase"] == "running" for p in status["providers"])
    return (
        f"The devnet runs: lite server {status['lite_server']}, DHT {status['dht']}, {running} providers. "
        f"Its global config is {status['global_config']}"
    )


async def _run(state: StateDir, providers: int | None, interval: float, console: Console) -> None:
    from ..devnet import daemon

    options = daemon.Options(state, providers, interval)
    stopped_by_hand = False
    async with trio.open_nursery() as nursery:

        def stop() -> None:
            nonlocal stopped_by_hand
            stopped_by_hand = True
            nursery.cancel_scope.cancel()

        async def whole_life(*, task_status: trio.TaskStatus[daemon.Daemon] = trio.TASK_STATUS_IGNORED) -> None:
            await daemon.run(options, task_status=task_status)
            nursery.cancel_scope.cancel()

        await nursery.start(until_signal, stop)
        running = await nursery.start(whole_life)
        click.echo(f"The devnet starts in {state.path} …", err=True)
        await _show(running, console)
    if stopped_by_hand and console.is_terminal:
        click.echo("The devnet is stopped.", err=True)


async def _show(running: Any, console: Console) -> None:
    """One line that stays up to date on a terminal; elsewhere one line when it is ready."""
    from ..devnet.handlers import Handlers

    handlers = Handlers(running)
    live = console.is_terminal and not os.environ.get("NO_COLOR")
    if not live:
        await running.supervisor.wait_up()
        click.echo(_banner(await handlers.status({})), err=True)
        await trio.sleep_forever()
    with console.status("") as line:
        while True:
            line.update(_line(await handlers.status({})))
            await trio.sleep(0.5)


def _line(status: dict[str, Any]) -> str:
    providers = status["providers"]
    running = sum(p["phase"] == "running" for p in providers)
    broken = [f"{p['number']} {p['fault']}" for p in providers if p["fault"] != "none"]
    faults = f" ({', '.join(broken)})" if broken else ""
    coins = "coins ok" if status["coins"]["ok"] else "COINS DO NOT ADD UP"
    return (
        f"block {status['seqno']}, {status['time']}, providers {running}/{len(providers)}{faults}, {coins}, "
        f"clients {status['clients']}"
    )


@command.command("down", help="Stop the network and wait until it is gone.")
@_state_option
def down(state: Path | None) -> None:
    directory = _directory(state)
    pid = directory.pid()
    if not directory.held():
        raise NotRunning(f"No devnet runs in {directory.path}.")
    try:
        _call(directory, "shutdown")
    except TonfsError:
        if pid is not None and directory.held():  # it starts, stops or hangs: a signal says the same
            os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + STOP_TIMEOUT
    while directory.running(pid):
        if time.monotonic() > end:
            raise TimedOut(
                f"The devnet did not stop within {STOP_TIMEOUT:g} s (process {pid}).",
                hint=f"Its log is {directory.log}.",
            )
        time.sleep(0.05)
    click.echo("The devnet is stopped.", err=True)


@command.command("status", help="Addresses, providers, height, time and coins.")
@_state_option
@json_option
def status(state: Path | None, as_json: bool) -> None:
    value = _call(_directory(state), "status")
    if as_json:
        emit("devnet-status", value)
        return
    for line in _lines(value):
        click.echo(line)
    click.echo()
    _providers(value)


def _lines(value: dict[str, Any]) -> Iterator[str]:
    coins = value["coins"]
    sums = "add up" if coins["ok"] else "DO NOT ADD UP"
    yield f"state          {value['state']} (process {value['pid']})"
    yield f"global config  {value['global_config']}"
    yield f"lite server    {value['lite_server']} ({value['clients']} clients)"
    yield f"DHT            {value['dht']}"
    yield f"block          {value['seqno']}, one every {value['block_interval']:g} s"
    yield f"time           {value['time']}"
    yield (
        f"coins          {format_ton(coins['issued'])} issued, {format_ton(coins['held'])} held, "
        f"{format_ton(coins['fees'])} fees, {format_ton(coins['in_flight'])} on the way; they {sums}"
    )


def _providers(value: dict[str, Any]) -> None:
    columns = ("no", "provider key", "port", "process", "TON/MB-day", "state", "fault")
    rows = [
        (p["number"], p["key"][:16], p["port"], p["pid"] or "-", format_ton(p["rate"]), p["phase"], p["fault"])
        for p in value["providers"]
    ]
    show_table(columns, rows, right={"no", "port", "process", "TON/MB-day"})


@command.command("faucet", help="Give new coins to an address (any usual form).")
@click.argument("address")
@click.argument("amount")
@_state_option
@json_option
def faucet(address: str, amount: str, state: Path | None, as_json: bool) -> None:
    try:
        coins = parse_ton(amount)
    except ValueError as exc:
        raise UsageError(f"{exc}.") from None
    value = _call(_directory(state), "faucet", {"address": address, "amount": coins})
    value["address"] = friendly(value["address"], bounceable=False)
    if as_json:
        emit("devnet-faucet", value)
    else:
        click.echo(f"{value['address']} has {format_ton(value['balance'])} TON now (block {value['seqno']}).")


@command.command("time", help="Show the chain's time, or move it forward.")
@_state_option
@click.option("--advance", metavar="DURATION", help="How far: 30s, 10m, 2h, 30d.")
@json_option
def time_(state: Path | None, advance: str | None, as_json: bool) -> None:
    directory = _directory(state)
    if advance is not None:
        seconds = parse_duration(advance)
        if seconds != int(seconds):
            raise UsageError("The chain's time moves in whole seconds.")
        value = _call(directory, "advance", {"seconds": int(seconds)})
    else:
        now = _call(directory, "status")
        value = {"seqno": now["seqno"], "time": now["time"]}
    if as_json:
        emit("devnet-time", value)
    else:
        click.echo(f"{value['time']} (block {value['seqno']})")


@command.command("fault", help="Break a provider (number or beginning of its key) on purpose, or mend it with 'none'.")
@click.argument("provider")
@click.argument("kind", type=click.Choice(["silent", "slow", "hash-only", "wrong-bytes", "vanish", "none"]))
@_state_option
@json_option
def fault(provider: str, kind: str, state: Path | None, as_json: bool) -> None:
    value = _call(_directory(state), "fault", {"provider": provider, "kind": kind})
    if as_json:
        emit("devnet-fault", value)
    else:
        click.echo(f"Provider {value['number']} ({value['key'][:16]}): {value['fault']}.")


@command.command("trace", help="What became of a message: its transaction, the messages that sent, and so on.")
@click.argument("hash", metavar="HASH")
@_state_option
@json_option
def trace(hash: str, state: Path | None, as_json: bool) -> None:
    value = _call(_directory(state), "trace", {"hash": hash})
    for step in value["steps"]:
        _make_friendly(step["transaction"])
    if as_json:
        emit("devnet-trace", value)
        return
    for step in value["steps"]:
        click.echo("  " * step["depth"] + _step(step))


def _make_friendly(transaction: dict[str, Any] | None) -> None:
    """Addresses are printed in the user-friendly form; which are wallets is not known here."""
    if transaction is None:
        return
    transaction["account"] = friendly(transaction["account"])
    transaction["source"] = friendly(transaction["source"]) if transaction["source"] else None
    for message in transaction["out"]:
        message["to"] = friendly(message["to"]) if message["to"] else None


def _step(step: dict[str, Any]) -> str:
    found = step["transaction"]
    if found is None:
        return f"{step['message'][:16]} waits for a block"
    source = found["source"] or "outside"
    outcome = "aborted" if found["aborted"] else "done"
    codes = f"exit {found['exit_code']}, action {found['action_code']}"
    value = format_ton(found["value"])
    return (
        f"{step['message'][:16]} from {source} to {found['account']}: {value} TON, {outcome} ({codes}), "
        f"fees {format_ton(found['fees'])}, block {found['seqno']}"
    )


@command.command("snapshot", help="Save the chain under a name, set it back, or list the names.")
@click.argument("action", type=click.Choice(["save", "restore", "list"]))
@click.argument("name", required=False)
@_state_option
@json_option
def snapshot(action: str, name: str | None, state: Path | None, as_json: bool) -> None:
    directory = _directory(state)
    if action != "list" and not name:
        raise UsageError(f"'snapshot {action}' needs a name.")
    method = {"save": "snapshot", "restore": "restore", "list": "snapshots"}[action]
    value = _call(directory, method, {} if action == "list" else {"name": name})
    if as_json:
        emit("devnet-snapshot", value)
    elif action == "list":
        click.echo("\n".join(value["snapshots"]) or "There are no snapshots.")
    else:
        done = "saved" if action == "save" else "restored"
        click.echo(f"Snapshot {value['name']} {done} (block {value['seqno']}).")
