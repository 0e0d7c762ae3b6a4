"""Long work on a terminal: a bar that shows how far it is, and what to do after Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from .common import Context

Report = Callable[[int, int], None]
"""(bytes done, bytes in all)"""


@contextmanager
def progress_bar(context: Context, what: str) -> Iterator[Report]:
    """A bar on stderr when that is a terminal; nothing otherwise."""
    if context.quiet or os.environ.get("NO_COLOR") or not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = ("[progress.description]{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def resumable() -> Iterator[None]:
    """Ctrl-C in this block ends the command with the word that it can be run again. Raises click.Abort."""
    interrupted = False
    try:
        yield
    except* KeyboardInterrupt:
        interrupted = True
    if interrupted:
        click.echo("Interrupted. Run the same command again to go on.", err=True)
        raise click.Abort
