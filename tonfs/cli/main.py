"""The command line: one file per verb, imported only when that verb is asked for."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Final

import click

from .. import __version__
from ..errors import TonfsError
from ..system import FORBIDDEN, FULL, from_os
from .common import Context, LazyGroup

VERBS: Final[dict[str, str]] = {
    "init": "Make a volume; shows its 24 words once.",
    "up": "All in one: network, mount, S3, agent; a live table.",
    "down": "Stop what 'up --detach' started.",
    "mount": "Mount a volume (only the file system and its front).",
    "umount": "Unmount, after everything is safe.",
    "agent": "The agent: packs, replicates, audits, pays.",
    "s3": "The S3 door and its access keys.",
    "status": "Processes, files, packs, replicas, verdicts, coins.",
    "why": "Where each range of a file is, and what it waits for.",
    "wait": "Return when everything below some paths is proven.",
    "evict": "Drop local copies that enough providers hold.",
    "fetch": "Bring evicted files back.",
    "pin": "Keep local copies.",
    "unpin": "Let local copies go again.",
    "policy": "What holds for a path and below it.",
    "fsck": "Check a volume, and repair it.",
    "config": "Settings of a volume.",
    "ledger": "What was spent on what.",
    "wallet": "The wallet that pays.",
    "contract": "Storage contracts.",
    "provider": "Run a storage provider.",
    "bag": "Make, check, seed and fetch plain TON Storage bags.",
    "devnet": "The local network: chain, DHT, storage providers.",
    "helper": "Make mount(8), fstab and systemd know tonfs.",
    "doctor": "Check this machine.",
    "completion": "Shell completion.",
    "help": "Explain a verb or an error code.",
}
"""Verb -> one line of help. The verb `x-y` lives in `tonfs/cli/x_y.py` as `command`."""


def _load(verb: str) -> click.Command:
    command: click.Command = importlib.import_module(f"tonfs.cli.{verb.replace('-', '_')}").command
    return command


class _Root(LazyGroup):
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Root, verbs=list(VERBS), load=_load, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tonfs")
@click.option("--volume", metavar="NAME", help="Volume: a name, or a path with a slash.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option("-v", "verbose", count=True, help="More log lines.")
@click.option("--quiet", is_flag=True, help="Only errors.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Of log lines.")
@click.pass_context
def root(ctx: click.Context, volume: str | None, debug: bool, verbose: int, quiet: bool, log_format: str) -> None:
    """A file system and sync agent on TON Storage, with an S3 door."""
    ctx.obj = Context(volume_name=volume, debug=debug, verbose=verbose, quiet=quiet, log_format=log_format)


def report(exc: TonfsError, debug: bool) -> int:
    """Print an error for a person and return its exit code."""
    if debug:
        traceback.print_exception(exc)
    click.echo(f"tonfs: {exc.message} [{exc.code}]", err=True)
    if exc.hint:
        click.echo(f"       {exc.hint}", err=True)
    return exc.exit_code


def _leaf(exc: BaseException) -> BaseException:
    """The only error inside nested groups of one; nurseries wrap what their tasks raise."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def run(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] not in VERBS:
        from . import mount8

        if mount8.is_fuse_call(words):
            return mount8.run_mount(words)
    debug = "--debug" in (argv if argv is not None else sys.argv) or bool(os.environ.get("TONFS_DEBUG"))
    try:
        root.main(args=argv, prog_name="tonfs", standalone_mode=False)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.Abort:
        return 130
    except click.ClickException as exc:
        exc.show()
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except BaseException as wrapped:
        inner = _leaf(wrapped)
        if isinstance(inner, OSError) and (inner.errno in FULL or (inner.errno in FORBIDDEN and inner.filename)):
            inner = from_os(inner)
        if isinstance(inner, TonfsError):
            return report(inner, debug)
        if isinstance(inner, KeyboardInterrupt):
            return 130
        if isinstance(inner, SystemExit):
            raise
        if debug:
            traceback.print_exception(wrapped)
        click.echo(f"tonfs: internal error: {type(inner).__name__}: {inner}", err=True)
        click.echo("       Run again with --debug to see where; please report it.", err=True)
        return 1
    return 0


def main() -> None:
    sys.exit(run())
