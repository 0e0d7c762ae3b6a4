"""`tonfs provider run`: rent out space."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from ..control.process import die_with_parent
from .common import Context, pass_context
from .foreground import run_until_signal


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

    run_until_signal(lambda: run_provider(config))
