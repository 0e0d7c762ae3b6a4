"""`tonfs evict`: let local copies go where enough audited replicas hold them."""

from __future__ import annotations

import click

from ..control import call_sync
from .common import Context, emit, json_option, pass_context, show_size, volume_option
from .paths import volume_paths


@click.command(help="Free local space: drop copies that enough audited providers hold.")
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@json_option
@volume_option
@pass_context
def command(context: Context, paths: tuple[str, ...], as_json: bool) -> None:
    context.settings()
    run = context.volume / "run"
    inside = volume_paths(context.volume, paths)
    front = call_sync(run / "front.sock", "evict", {"paths": inside}, who="front", timeout=600.0)
    params = {"bag_ids": front["bag_ids"]}
    agent = call_sync(run / "agent.sock", "drop_local", params, who="agent", timeout=600.0)
    kept = front["kept"]
    if as_json:
        result = {"files": front["files"], "bytes": front["bytes"], "kept": kept, "packs_dropped": agent["dropped"],
                  "packs_kept": agent["kept"]}  # fmt: skip
        emit("evict", result)
        return
    click.echo(f"Evicted {front['files']} files ({show_size(front['bytes'])}); {len(agent['dropped'])} packs let go.")
    for item in kept[:10]:
        click.echo(f"kept {item['path']}: {item['why']}", err=True)
    if len(kept) > 10:
        click.echo(f"… and {len(kept) - 10} more files kept.", err=True)
