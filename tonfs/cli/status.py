"""`tonfs status`: one object made of what the front and the agent say of themselves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..control import call_sync, report
from ..errors import NotRunning, TimedOut
from ..ids import format_ton
from .common import Context, emit, json_option, pass_context, show_size, volume_option


def _ask(path: Path, who: str) -> dict[str, Any] | None:
    try:
        return call_sync(path, "status", who=who, timeout=10.0)
    except (NotRunning, TimedOut):
        return None


def gather(volume: Path, network: str) -> dict[str, Any]:
    """The status object of reference cli.md section 3. A process that does not answer shows as not alive."""
    front = _ask(volume / "run" / "front.sock", "front")
    agent = _ask(volume / "run" / "agent.sock", "agent") if network != "none" else None
    return report.status(volume, network, front, agent)


def _healthy(pack: dict[str, Any]) -> int:
    return sum(p["state"] == "active" for p in pack["placements"])


def render(status: dict[str, Any]) -> Group:
    """The live table: files, packs, replicas, verdicts, coins."""
    files, size = status["files"], status["bytes"]
    head = Table.grid(padding=(0, 2))
    head.add_column(style="bold")
    head.add_column()
    mount, s3, agent = status["mount"], status["s3"], status["agent"]
    head.add_row("mount", f"{mount['path'] or '-'}  {'up' if mount['alive'] else 'down'}")
    head.add_row("s3", f"{s3['url'] or '-'}  {'up' if s3['alive'] else 'down'}")
    if status["network"] != "none":
        state = "paused" if agent["paused"] else "up" if agent["alive"] else "down"
        head.add_row("agent", f"{state}  network {status['network']}")
    empty = files["total"] - files["dirty"] - files["packed"] - files["proven"]
    head.add_row(
        "files",
        f"{files['total']} ({files['dirty']} dirty, {files['packed']} packed, {files['proven']} proven, {empty} empty) "
        f"{show_size(size['logical'])} ({show_size(size['dirty'])} dirty, {show_size(size['local'])} local)",
    )
    money = status["money"]
    if money:
        days = money.get("runway_days")
        runway = "" if days is None else f", runway {days} d"
        head.add_row(
            "coins",
            f"{format_ton(money['balance'])} TON in the wallet, {format_ton(money['committed'])} in contracts, "
            f"{format_ton(money['spent_month'])} paid from it in 30 days{runway}",
        )
    parts: list[Any] = [head]
    if status["packs"]:
        parts.append(_pack_table(status["packs"]))
    if status["providers"]:
        parts.append(_provider_table(status))
    parts.extend(Text(f"! {p['text']}", style="yellow") for p in status["problems"][:5])
    return Group(*parts)


def _pack_table(packs: list[dict[str, Any]]) -> Table:
    table = Table(title=f"packs ({len(packs)})", title_justify="left", expand=False)
    for name in ("bag", "size", "files", "replicas", "placements"):
        table.add_column(name, justify="right" if name in {"size", "files", "replicas"} else "left", no_wrap=True)
    for pack in packs[-12:]:
        good = _healthy(pack)
        colour = "green" if good >= pack["wanted"] else "yellow"
        counts: dict[str, int] = {}
        for placement in pack["placements"]:
            counts[placement["state"]] = counts.get(placement["state"], 0) + 1
        text = " ".join(f"{n} {state}" for state, n in sorted(counts.items())) or "wanted"
        table.add_row(
            pack["bag_id"][:12],
            show_size(pack["size"]),
            str(pack["files"]),
            Text(f"{good} of {pack['wanted']}", style=colour),
            text,
        )
    return table


def _provider_table(status: dict[str, Any]) -> Table:
    table = Table(title="providers", title_justify="left", expand=False)
    for name in ("provider", "TON/GB/30d", "state", "healthy", "suspect", "failed"):
        table.add_column(name, justify="left" if name in {"provider", "state"} else "right", no_wrap=True)
    for provider in status["providers"]:
        verdicts = {"healthy": 0, "suspect": 0, "failed": 0}
        for pack in status["packs"]:
            for placement in pack["placements"]:
                verdict = (placement["last_audit"] or {}).get("verdict")
                if placement["provider"] == provider["key"] and verdict in verdicts:
                    verdicts[verdict] += 1
        price = provider["price"]
        table.add_row(
            provider["key"][:12],
            "-" if price is None else format_ton(price * 1024 * 30),
            provider["state"],
            str(verdicts["healthy"]),
            str(verdicts["suspect"]),
            str(verdicts["failed"]),
        )
    return table


@click.command(help="Show processes, files, packs, replicas, verdicts, coins.")
@click.option("--watch", is_flag=True, help="Keep showing until Ctrl-C.")
@json_option
@volume_option
@pass_context
def command(context: Context, watch: bool, as_json: bool) -> None:
    settings = context.settings()
    if as_json:
        emit("status", gather(context.volume, settings.network))
        return
    console = Console()
    if not watch or not console.is_terminal:
        console.print(render(gather(context.volume, settings.network)))
        return
    with Live(render(gather(context.volume, settings.network)), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(1.0)
            live.update(render(gather(context.volume, settings.network)), refresh=True)
