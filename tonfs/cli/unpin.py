"""`tonfs unpin PATH…`: local copies may be given up again."""

from __future__ import annotations

import os

import click

from .policy import effective, set_policy, unset_policy


@click.command(help="Let the local copies of PATHs go again when space is needed, also below a pinned directory.")
@click.argument("paths", nargs=-1, required=True, type=click.Path())
def command(paths: tuple[str, ...]) -> None:
    for path in paths:
        real = os.path.realpath(path)
        unset_policy(real, "pin")
        value, _ = effective(real).get("pin", ("false", ""))
        if value == "true":  # a directory above is pinned
            set_policy(real, "pin", "false")
