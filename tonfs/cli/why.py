"""`tonfs why`: where each range of a file is, and what it waits for."""

from __future__ import annotations

import click

from ..control import call_sync, report
from ..errors import TonfsError
from .common import Context, emit, json_option, pass_context, volume_option
from .paths import volume_paths


@click.command(help="Where each range of PATH is: local, pack, bag, providers, last audit, what it waits for.")
@click.argument("path", type=click.Path())
@json_option
@volume_option
@pass_context
def command(context: Context, path: str, as_json: bool) -> None:
    settings = context.settings()
    run = context.volume / "run"
    (inside,) = volume_paths(context.volume, (path,))
    front = call_sync(run / "front.sock", "why", {"path": inside}, who="front", timeout=30.0)
    agent = None
    if settings.network != "none":
        try:
            agent = call_sync(run / "agent.sock", "status", who="agent", timeout=30.0)
        except TonfsError as exc:
            click.echo(f"(no word from the agent: {exc.message})", err=True)
    front = report.why(front, agent)
    if as_json:
        emit("why", front)
        return
    click.echo(f"{path}: {front['state']}, {front['size']} bytes, inode {front['inode']}")
    for piece in front.get("ranges", []):
        where = "here" if piece["local"] else "not here"
        bag = piece.get("bag_id")
        line = f"  {piece['offset']}+{piece['length']}: {where}"
        click.echo(f"{line}, bag {bag}" if bag else f"{line}, {piece['kind']}")
        for placement in piece["placements"]:
            audit = placement["last_audit"]
            seen = f"audited {audit['at']}: {audit['verdict']}" if audit else "not audited yet"
            click.echo(f"      {placement['provider'][:16]} {placement['state']}, {seen}")
