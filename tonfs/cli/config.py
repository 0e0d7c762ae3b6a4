"""`tonfs config show`: the settings in force, and where each came from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from .. import config
from .common import Context, emit, json_option, pass_context, volume_option


@click.group(help="Settings of a volume.")
def command() -> None:
    """`config.toml`, then TONFS_* variables, then options."""


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            out.update(_flat(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = value
    return out


@command.command(help="Show every setting.")
@click.option("--origin", is_flag=True, help="Say where each value came from.")
@json_option
@volume_option
@pass_context
def show(context: Context, origin: bool, as_json: bool) -> None:
    settings, origins = config.load(context.volume)
    flat = _flat(asdict(settings))
    if as_json:
        value: dict[str, Any] = {"settings": flat}
        if origin:
            value["origins"] = {key: origins.get(key, "default") for key in flat}
        emit("config", value)
        return
    for key, setting in flat.items():
        tail = f"   # {origins.get(key, 'default')}" if origin else ""
        click.echo(f"{key} = {config.toml(setting)}{tail}")
