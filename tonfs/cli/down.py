"""`tonfs down`: stop what `tonfs up` started, in order."""

from __future__ import annotations

import click

from .common import Context, pass_context, volume_option
from .up import stop


@click.command(help="Stop what 'tonfs up --detach' started.")
@volume_option
@pass_context
def command(context: Context) -> None:
    context.settings()
    stop(context.volume)
    click.echo("Everything is stopped; the files are safe on this volume.", err=True)
