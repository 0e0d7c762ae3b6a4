"""`tonfs helper`: make mount(8), /etc/fstab and systemd know this tonfs, wherever it is installed."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from ..errors import NotFound, Refused, TonfsError
from ..log import get_logger
from .common import Context, pass_context

log = get_logger(__name__)

SBIN: Final = Path("/sbin")
"""mount(8) looks for helpers here and nowhere else."""
LINKS: Final = ("mount.tonfs", "mount.fuse.tonfs")
"""For `mount -t tonfs`, and for `mount -t fuse.tonfs` where `tonfs` is not on the PATH of mount.fuse."""
PROGRAM: Final = "mount.tonfs"
PACKAGED: Final = "/usr/bin/tonfs"
"""What the unit files say; replaced by the path of this very tonfs."""


def programs() -> Path:
    """Where pip put `tonfs` and its helpers."""
    return Path(sysconfig.get_path("scripts"))


def installed(directory: Path) -> dict[str, Path | None]:
    """Where each helper's link leads; None when there is none or it is dead."""
    found = {}
    for name in LINKS:
        path = directory / name
        found[name] = path.resolve() if path.exists() else None
    return found


def install(directory: Path) -> list[Path]:
    """Make the links. Raises Refused when something that is not ours has the name, NotFound without programs."""
    program = programs() / PROGRAM
    if not program.exists():
        raise NotFound(f"{program} is missing.", hint="Install tonfs again ('make setup').")
    for name in LINKS:
        if not _ours(directory / name):
            raise Refused(f"{directory / name} is there and not a link of tonfs.", hint="Move it away first.")
    made = []
    for name in LINKS:
        draft = directory / f".{name}.new"
        try:
            draft.unlink(missing_ok=True)
            draft.symlink_to(program)
            os.replace(draft, directory / name)
        except OSError as exc:
            raise _disk(exc, directory / name) from None
        made.append(directory / name)
    return made


def remove(directory: Path) -> list[Path]:
    """Remove our links, nothing else."""
    gone = []
    for name in LINKS:
        path = directory / name
        if path.is_symlink() and _ours(path):
            try:
                path.unlink()
            except OSError as exc:
                raise _disk(exc, path) from None
            gone.append(path)
    return gone


def _ours(path: Path) -> bool:
    """Nothing is there, or a link to a program of tonfs."""
    if not os.path.lexists(path):
        return True
    return path.is_symlink() and Path(os.readlink(path)).name == PROGRAM


def _disk(exc: OSError, path: Path) -> TonfsError:
    return Refused(f"{path} cannot be written: {exc.strerror}.", hint="Run this as root.")


def units(kind: str) -> Iterator[tuple[str, str]]:
    """(file name, text) of the unit files for `user` or `system`, made for this very tonfs."""
    program = str(programs() / "tonfs")
    quoted = program if program.replace("/", "").replace("-", "").replace("_", "").replace(".", "").isalnum() else (
        '"' + program.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'
    )  # fmt: skip
    for path in sorted((Path(__file__).parent.parent / "units" / kind).glob("*.*")):
        yield path.name, path.read_text(encoding="utf-8").replace(PACKAGED, quoted)


def unit_directory(kind: str) -> Path:
    if kind == "system":
        return Path("/etc/systemd/system")
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return Path(base) / "systemd" / "user"


def write_units(kind: str, directory: Path) -> list[Path]:
    """Write them; files that are the same stay. Raises Refused."""
    made = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in units(kind):
            (directory / name).write_text(text, encoding="utf-8")
            made.append(directory / name)
    except OSError as exc:
        raise _disk(exc, directory) from None
    return made


@click.group(help="Make mount(8), fstab and systemd know this tonfs.")
def command() -> None:
    """Links in /sbin and unit files."""


_directory = click.option(
    "--directory", type=click.Path(path_type=Path, file_okay=False), default=SBIN, help="Default: /sbin."
)


@command.command("install", help="Link mount.tonfs into /sbin (as root), so that 'mount -t tonfs' and fstab work.")
@_directory
@pass_context
def install_links(context: Context, directory: Path) -> None:
    for path in install(directory):
        if not context.quiet:
            click.echo(f"{path} -> {os.readlink(path)}", err=True)


@command.command("remove", help="Remove the links again.")
@_directory
@pass_context
def remove_links(context: Context, directory: Path) -> None:
    gone = remove(directory)
    if not context.quiet:
        click.echo("\n".join(f"{path} is gone." for path in gone) or "There was nothing to remove.", err=True)


@command.command("units", help="Write systemd unit files (for you, or with --system for the machine).")
@click.option("--system", is_flag=True, help="For the whole machine (as root); default: for this user.")
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False), help="Write them there instead.")
@pass_context
def write_unit_files(context: Context, system: bool, directory: Path | None) -> None:
    kind = "system" if system else "user"
    for path in write_units(kind, directory or unit_directory(kind)):
        if not context.quiet:
            click.echo(str(path), err=True)
    if not context.quiet and directory is None:
        scope = "" if system else " --user"
        click.echo(f"Next: systemctl{scope} daemon-reload && systemctl{scope} enable --now tonfs@VOLUME", err=True)
