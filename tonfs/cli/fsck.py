"""`tonfs fsck`: checks a volume that nobody uses, and with --repair puts right what it can."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..errors import Busy, Damaged, TonfsError
from .common import Context, emit, json_option, pass_context, volume_option

if TYPE_CHECKING:
    from ..volume.check import Finding

PASSES: Final = 4
"""One repair may bring another finding to light; never more often than this."""
SAY_EVERY: Final = 10.0
DAMAGED: Final = Damaged.exit_code


@contextmanager
def alone(volume: Path, level: int) -> Iterator[None]:
    """Nobody else uses the volume meanwhile. Raises Busy, NotFound."""
    from ..volume.claim import claim
    from .up import answers

    try:
        descriptor = claim(volume)
    except Busy:
        raise Busy(
            f"The volume {volume} is mounted or served; fsck needs it for itself.", hint="Unmount it: tonfs umount DIR"
        ) from None
    try:
        if level > 1 and answers(volume / "run" / "agent.sock"):
            raise Busy("The agent is at work on the packs.", hint="Stop it ('tonfs down'), or check with --level 1.")
        yield
    finally:
        os.close(descriptor)


class _Shown:
    """Progress: a bar on a terminal, else a line now and then."""

    def __init__(self, quiet: bool) -> None:
        console = Console(stderr=True)
        bar = console.is_terminal and not quiet and not os.environ.get("NO_COLOR")
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True) if bar else None
        self._task: TaskID | None = None
        self._quiet = quiet
        self._next = time.monotonic() + SAY_EVERY

    def __enter__(self) -> _Shown:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=what, completed=done, total=total)
        elif not self._quiet and time.monotonic() > self._next:
            self._next = time.monotonic() + SAY_EVERY
            click.echo(f"{what}: {100 * done // max(1, total)} %", err=True)


def look(volume: Path, level: int, shown: _Shown, *, repair: bool = False) -> list[Finding]:
    """All findings up to a level. Raises Damaged when a database cannot be read."""
    from ..volume.check import check_index, open_index
    from ..volume.check_content import check_content
    from ..volume.check_packs import check_packs

    db = open_index(volume, replay=repair)
    try:
        found = list(check_index(db, volume, shown))
        if any(finding.kind == "index-file" for finding in found):
            return found
        found += check_content(db, volume, shown)
        if level >= 2:
            found += check_packs(db, volume, shown)
        if level >= 3:
            found += _agent(db, volume)
    finally:
        db.close()
    return found


def _agent(db: sqlite3.Connection, volume: Path) -> Iterator[Finding]:
    from ..agent.check import IndexedPack, check_placements
    from ..ids import BagId
    from ..volume.check import Finding

    rows = db.execute(
        "SELECT p.bag_id, p.proven, count(e.inode), coalesce(min(e.local), 1) FROM pack p "
        "LEFT JOIN extent e ON e.pack = p.pack GROUP BY p.pack"
    )
    packs = [IndexedPack(BagId(bytes(row[0])), row[1], row[2] > 0, not row[3]) for row in rows]
    for problem in check_placements(volume, packs):
        yield Finding(problem.kind, problem.text, harmless=problem.harmless)


@dataclass
class Outcome:
    found: list[Finding]
    """Everything that was seen, in the order of the passes."""
    left: list[Finding]
    """What is still there at the end."""

    @property
    def damage(self) -> list[Finding]:
        return [finding for finding in self.left if not finding.harmless]

    def repaired(self, finding: Finding) -> bool:
        return (finding.kind, finding.text) not in {(one.kind, one.text) for one in self.damage}


def run(volume: Path, level: int, repair: bool, shown: _Shown) -> Outcome:
    """Look, and with `repair` mend and look again until nothing more can be done. Raises TonfsError."""
    from ..volume.repair import Repair

    left = look(volume, level, shown, repair=repair)
    found = list(left)
    for _ in range(PASSES if repair else 0):
        if not any(finding.fix is not None and not finding.harmless for finding in left):
            break
        try:
            Repair(volume).run(left)
        except (OSError, sqlite3.Error) as exc:
            raise Damaged(f"The repair did not work, the index is as it was: {exc}.") from None
        left = look(volume, level, shown)
        known = {(one.kind, one.text) for one in found}
        found += [finding for finding in left if (finding.kind, finding.text) not in known]
    return Outcome(found, left)


def _as_json(finding: Finding, outcome: Outcome) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "text": finding.text,
        "harmless": finding.harmless,
        "repair": None if finding.fix is None else finding.fix.text,
        "repaired": outcome.repaired(finding),
    }


def _tell(outcome: Outcome, repair: bool) -> None:
    for finding in outcome.found:
        if finding.harmless:
            click.echo(f"note    {finding.text} The next mount takes care of it.")
        elif outcome.repaired(finding):
            click.echo(f"mended  {finding.text}")
        else:
            click.echo(f"DAMAGE  {finding.text}")
            if finding.fix is not None:
                click.echo(f"        --repair would {finding.fix.text}.")
    damage = outcome.damage
    mended = sum(outcome.repaired(one) for one in outcome.found if not one.harmless)
    if not damage and not mended:
        click.echo("Nothing is wrong.")
        return
    rest = f"{len(damage)} left" if repair else f"{sum(one.fix is not None for one in damage)} can be mended"
    click.echo(f"{len(damage) + mended} damaged places found, {mended} mended, {rest}.")


@click.command(help="Check a volume that is not mounted: index and content (1), packs (2), placements (3).")
@click.option("--level", type=click.IntRange(1, 3), default=1, help="Default: 1. Each includes those below it.")
@click.option("--repair", is_flag=True, help="Put right what can be; without it nothing is changed.")
@json_option
@volume_option
@pass_context
def command(context: Context, level: int, repair: bool, as_json: bool) -> None:
    context.settings()
    volume = context.volume
    with alone(volume, level), _Shown(context.quiet) as shown:
        try:
            outcome = run(volume, level, repair, shown)
        except OSError as exc:
            raise TonfsError(f"{exc.filename or volume} cannot be read: {exc.strerror or exc}.") from None
    if as_json:
        findings = [_as_json(finding, outcome) for finding in outcome.found]
        emit("fsck", {"volume": str(volume), "level": level, "clean": not outcome.damage, "findings": findings})
    else:
        _tell(outcome, repair)
    if outcome.damage:
        raise SystemExit(DAMAGED)
