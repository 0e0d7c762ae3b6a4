"""`tonfs wait`: return when everything below some paths is proven often enough."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ..control import call_sync
from ..errors import NotFound, TimedOut, TonfsError, UsageError
from .common import Context, emit, json_option, parse_duration, pass_context, show_size, volume_option
from .paths import volume_paths


def look(volume: Path, paths: list[str], replicas: int | None, usual: int) -> dict[str, Any]:
    """One look: what is still dirty, and which bags have fewer proven replicas than `replicas`, or than they shall
    have; `usual`: the volume's number."""
    below = call_sync(volume / "run" / "front.sock", "resolve", {"paths": paths}, who="front", timeout=60.0)
    if below["missing"]:
        raise NotFound(f"{below['missing'][0]} does not exist.")
    bags = set(below["bag_ids"])
    agent = call_sync(volume / "run" / "agent.sock", "status", who="agent", timeout=60.0)
    proven = {p["bag_id"]: sum(x["state"] == "active" for x in p["placements"]) for p in agent["packs"]}
    wanted = {p["bag_id"]: p["wanted"] for p in agent["packs"]}
    missing = {b: (replicas or wanted.get(b) or usual) - proven.get(b, 0) for b in bags}
    short = sorted(b for b in bags if missing[b] > 0)
    return {
        "dirty_files": below["dirty_files"],
        "dirty_bytes": below["dirty_bytes"],
        "bags": len(bags),
        "bags_short": len(short),
        "replicas_missing": sum(missing[b] for b in short),
        "done": below["dirty_files"] == 0 and not short,
        "problems": agent.get("problems", []),
    }


@click.command(help="Return when everything below PATHs is proven at N providers.")
@click.argument("paths", nargs=-1, type=click.Path())
@click.option(
    "--replicas", type=click.IntRange(1, 100), help="Default: as many as the policies of PATHs and of the volume say."
)
@click.option("--timeout", metavar="D", help="Give up after this long (exit code 7). Default: never.")
@json_option
@volume_option
@pass_context
def command(context: Context, paths: tuple[str, ...], replicas: int | None, timeout: str | None, as_json: bool) -> None:
    settings = context.settings()
    if settings.network == "none":
        raise UsageError("This volume has no network, so nothing is ever proven.", hint="Make one with a network.")
    usual = settings.policy.replica.replicas
    limit = time.monotonic() + parse_duration(timeout) if timeout else None
    inside = volume_paths(context.volume, paths)
    last = ""
    seen: dict[str, Any] = {}
    while True:
        try:
            call_sync(context.volume / "run" / "agent.sock", "flush", who="agent", timeout=60.0)
            seen = look(context.volume, inside, replicas, usual)
        except TonfsError as exc:
            if not exc.transient or limit is None or time.monotonic() > limit:
                raise
            seen = {"done": False, "dirty_files": 0, "dirty_bytes": 0, "bags": 0, "bags_short": 0,
                    "replicas_missing": 0, "problems": [{"code": exc.code, "text": exc.message}]}  # fmt: skip
        if seen["done"]:
            break
        text = (
            f"{seen['dirty_files']} files ({show_size(seen['dirty_bytes'])}) to pack, "
            f"{seen['bags'] - seen['bags_short']} of {seen['bags']} packs proven, "
            f"{seen['replicas_missing']} replicas to go"
        )
        if text != last and not context.quiet:
            click.echo(text, err=True)
            last = text
        if limit is not None and time.monotonic() > limit:
            why = "; ".join(p["text"] for p in seen["problems"][:3])
            raise TimedOut(f"Not proven in time: {text}.", hint=why or "'tonfs status' and 'tonfs why PATH' tell more.")
        time.sleep(0.5)
    if as_json:
        emit("wait", {"replicas": replicas or usual, "bags": seen["bags"], "done": True})
