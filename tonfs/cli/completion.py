"""`tonfs completion`: shell completion scripts."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .main import root


@click.command(help='Print the completion script for a shell: eval "$(tonfs completion bash)".')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    completion = get_completion_class(shell)
    if completion is None:
        raise click.UsageError(f"No completion for {shell}.")
    click.echo(completion(root, {}, "tonfs", "_TONFS_COMPLETE").source())
