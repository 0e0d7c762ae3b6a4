"""`tonfs pin PATH…`: local copies below it are never given up."""

from __future__ import annotations

import os

import click

from .policy import set_policy


@click.command(help="Keep the local copies of PATHs and everything below ('tonfs policy set PATH pin=true').")
@click.argument("paths", nargs=-1, required=True, type=click.Path())
def command(paths: tuple[str, ...]) -> None:
    for path in paths:
        set_policy(os.path.realpath(path), "pin", "true")
