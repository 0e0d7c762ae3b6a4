"""`tonfs bag`: a plain TON Storage tool. Each verb is imported when it runs."""

from __future__ import annotations

import importlib
from typing import Final

import click

_VERBS: Final = {
    "create": ("bag_make", "create"),
    "info": ("bag_make", "info"),
    "verify": ("bag_make", "verify"),
    "seed": ("bag_seed", "seed"),
    "get": ("bag_get", "get"),
    "list": ("bag_list", "list_"),
    "remove": ("bag_list", "remove"),
}
"""Verb -> (module of this package, its command)."""


class _BagGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module, name = _VERBS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"tonfs.cli.{module}"), name)
        return command


@click.group(cls=_BagGroup, help="Make, check, seed and fetch plain TON Storage bags.")
def command() -> None:
    pass
