"""`tonfs bag`: a plain TON Storage tool. Each verb is imported when it runs."""

from __future__ import annotations

import importlib
from typing import Final

import click

from .common import LazyGroup

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


def _load(verb: str) -> click.Command:
    module, name = _VERBS[verb]
    command: click.Command = getattr(importlib.import_module(f"tonfs.cli.{module}"), name)
    return command


@click.group(cls=LazyGroup, verbs=list(_VERBS), load=_load, help="Make, check, seed and fetch plain TON Storage bags.")
def command() -> None:
    pass
