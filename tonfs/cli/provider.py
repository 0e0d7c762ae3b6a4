"""`tonfs provider run`: rent out space."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import click
import trio

from ..control.process import die_with_parent
from .common import Context, pass_context


@click.group(help="Rent out space on the storage market.")
def command() -> None:
    pass


@command.command(help="Run a storage provider in the foreground until SIGTERM or Ctrl-C.")
@click.option(
    "--config", "path", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Its settings (TOML)."
)
@pass_context
def run(context: Context, path: Path) -> None:
    from ..provider.config import ProviderConfig
    from ..provider.service import run_provider

    die_with_parent()
    context.configure_log(logging.INFO)
    config = ProviderConfig.load(path)

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def until_signal(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
                with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                    task_status.started()
                    async for _ in signals:
                        nursery.cancel_scope.cancel()
                        return

            await nursery.start(until_signal)
            await run_provider(config)
            nursery.cancel_scope.cancel()

    trio.run(main)
