"""`tonfs agent run|pause|resume`."""

from __future__ import annotations

import logging

import click

from ..control import call_sync
from ..control.process import die_with_parent
from .common import Context, pass_context, volume_option
from .foreground import run_until_signal


@click.group(help="The agent: packs, replicates, audits, pays.")
def command() -> None:
    """Verbs for the single part; `tonfs up` runs it with everything else."""


@command.command(help="Run the agent in the foreground until SIGTERM or Ctrl-C.")
@volume_option
@pass_context
def run(context: Context) -> None:
    from ..agent.main import run_agent

    die_with_parent()
    context.configure_log(logging.INFO)
    settings = context.settings()
    run_until_signal(lambda: run_agent(context.volume, settings))


@command.command(help="Stop packing and spending; serving and reading go on.")
@volume_option
@pass_context
def pause(context: Context) -> None:
    context.with_network()
    call_sync(context.volume / "run" / "agent.sock", "pause", who="agent")


@command.command(help="Go on after 'pause'.")
@volume_option
@pass_context
def resume(context: Context) -> None:
    context.with_network()
    call_sync(context.volume / "run" / "agent.sock", "resume", who="agent")
