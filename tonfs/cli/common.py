"""What every verb shares: where the volume is, how JSON and amounts are printed, how options read sizes."""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from .. import config, log
from ..errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Context:
    """Options before the verb."""

    volume_name: str | None = None
    debug: bool = False
    verbose: int = 0
    quiet: bool = False
    log_format: str = "text"

    @property
    def volume(self) -> Path:
        return config.volume_path(self.volume_name)

    def settings(self, options: dict[str, Any] | None = None) -> config.Settings:
        """Settings of the volume. Raises NotFound when there is none."""
        return config.load(self.volume, options=options)[0]

    def with_network(self) -> config.Settings:
        """Settings of a volume that has agent, wallet and contracts. Raises NotFound, UsageError."""
        settings = self.settings()
        if settings.network == "none":
            raise UsageError("This volume has no network.", hint="Make one with 'tonfs init --network devnet'.")
        return settings

    def configure_log(self, default: int = logging.WARNING) -> None:
        level = logging.ERROR if self.quiet else max(logging.DEBUG, default - 10 * self.verbose)
        log.configure(level, self.log_format)


class LazyGroup(click.Group):
    """Knows its verbs by name, says which is nearest to a wrong one, and imports the one that runs."""

    def __init__(self, *args: Any, verbs: Sequence[str], load: Callable[[str], click.Command], **named: Any) -> None:
        super().__init__(*args, **named)
        self._verbs = verbs
        self._load = load

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._load(cmd_name) if cmd_name in self._verbs else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self._verbs:
            tail = nearest(args[0], self._verbs) or f"'{ctx.command_path} --help' lists the verbs."
            raise click.UsageError(f"There is no verb '{args[0]}'. {tail}", ctx)
        return super().resolve_command(ctx, args)


def nearest(word: str, known: Iterable[str]) -> str:
    """Which known word may have been meant, as a sentence; empty when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean '{near[0]}'?" if near else ""


pass_context = click.make_pass_decorator(Context, ensure=True)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")(function)


def volume_option(function: F) -> F:
    """`--volume` after the verb as well as before it."""

    def remember(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.ensure_object(Context).volume_name = value

    return click.option("--volume", metavar="NAME", expose_value=False, callback=remember, help="Volume.")(function)


def emit(verb: str, value: dict[str, Any]) -> None:
    """Print the JSON object of a verb: `"schema": "tonfs.<verb>/1"` first (reference cli.md section 1)."""
    click.echo(json.dumps({"schema": f"tonfs.{verb}/1", **value}, indent=2, ensure_ascii=True))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Collection[str] = ()) -> None:
    """Print rows under a head, as wide as they are: nothing is cut, whatever the terminal. `right`: names of columns
    whose values stand at the right."""
    lines = [list(columns), *([str(value) for value in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        cells = zip(line, widths, columns, strict=True)
        click.echo(" ".join(f"{t:>{w}}" if name in right else f"{t:<{w}}" for t, w, name in cells).rstrip())


def parse_size(text: str) -> int:
    """`4K 4KiB 4kB 4096` in bytes. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,15})\s*([kKmMgGtT]?)(iB|B)?", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a size.", hint="Try 4096, 4K, 4KiB or 4kB.")
    base = 1000 if match[3] == "B" and match[2] else 1024
    return int(match[1]) * int(base ** " kmgt".index(match[2].lower() or " "))


def parse_duration(text: str) -> float:
    """`30s 10m 2h 30d` in seconds. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)\s*(s|m|h|d)?", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a duration.", hint="Try 30s, 10m, 2h or 30d.")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2] or "s"]


def show_size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def display_name(name: bytes) -> str:
    """A file name for JSON: surrogateescape keeps every byte."""
    return os.fsdecode(name)
