"""What mount(8) runs: `mount.tonfs` and `mount.fuse.tonfs`.

mount(8), "External helpers": `mount.tonfs SOURCE DIR [-sfnv] [-N namespace] [-t type] [-o options]`, exit codes 1
(usage), 2 (system), 4 (bug), 8 (interrupted), 32 (failed). There may be no PATH and no HOME.
"""

from __future__ import annotations

import ctypes
import errno
import getopt
import logging
import os
import re
import stat
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import click

from .. import __version__, log
from ..config import load, volume_path
from ..control import call_sync
from ..errors import NotFound, Refused, TonfsError, UsageError

USAGE, SYSTEM, BUG, INTERRUPTED, FAILED = 1, 2, 4, 8, 32
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NO_SOURCE: Final = ("none", "tonfs", "-")
"""Sources that name no volume: the option `volume=` does."""
_CLONE_NEWNS: Final = 0x00020000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Call:
    """A parsed call of the helper."""

    source: str
    directory: Path
    options: tuple[str, ...] = ()
    sloppy: bool = False
    fake: bool = False
    verbose: bool = False
    namespace: str = ""
    """Mount name space to work in: a process number, or a file of /proc/PID/ns."""


def parse_call(argv: Sequence[str]) -> Call:
    """Raises UsageError."""
    try:
        given, words = getopt.gnu_getopt(list(argv), "sfnvo:t:N:")
    except getopt.GetoptError as exc:
        raise UsageError(f"{exc.msg}.", hint="It is called as: mount.tonfs SOURCE DIR [-sfnv] [-o OPTIONS]") from None
    if len(words) != 2:
        raise UsageError("A source and a directory are needed.", hint="mount -t tonfs VOLUME DIR -o OPTIONS")
    if "" in words:
        raise UsageError("The source and the directory cannot be empty.", hint="mount -t tonfs VOLUME DIR -o OPTIONS")
    flags = {name for name, _ in given}
    options = tuple(value for name, value in given if name == "-o")
    namespace = dict(given).get("-N", "")
    return Call(words[0], Path(words[1]), options, "-s" in flags, "-f" in flags, "-v" in flags, namespace)


def enter(namespace: str) -> None:
    """`mount -N`: mount(8) runs its helpers in its own mount name space and leaves this to them. Raises Refused."""
    path = f"/proc/{namespace}/ns/mnt" if namespace.isdigit() else namespace
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(fd, _CLONE_NEWNS) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            os.close(fd)
    except OSError as exc:
        raise Refused(f"The mount name space {namespace} cannot be entered: {exc.strerror}.") from None


def _check_point(directory: Path) -> None:
    """As any other file system: mount(8) makes no directories. Raises NotFound, Refused."""
    try:
        mode = os.stat(directory).st_mode
    except FileNotFoundError:
        raise NotFound(
            f"The mount point {directory} does not exist.", hint=f"Make it first: mkdir {directory}"
        ) from None
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise Refused(f"The mount point {directory} is a symbolic link that leads nowhere.") from None
        return  # a dead mount; the front cleans it up
    if not stat.S_ISDIR(mode):
        raise Refused(f"The mount point {directory} is not a directory.")


def volume_named(source: str, option: str | None) -> Path:
    """The volume behind a mount's source, or the option `volume=`, which wins. Raises UsageError."""
    from ..fuse import volume_of

    if option is not None:
        return volume_path(option)
    if source in NO_SOURCE:
        raise UsageError("The source names no volume.", hint="Give a volume as source, or the option volume=NAME.")
    return volume_of(source) or volume_path(source)


def mount(call: Call) -> None:
    """Mount, or change a mount; returns when it answers. Raises TonfsError."""
    from ..fuse import known_options, parse_options
    from .mount import start_front

    if call.fake:
        return
    if call.namespace:
        enter(call.namespace)
    texts = known_options(call.options) if call.sloppy else call.options
    parsed = parse_options(texts)
    if parsed.remount:
        remount(call.directory, texts)
        return
    volume = volume_named(call.source, parsed.volume)
    if mounts_all() and _is_there(volume, call.directory):
        return
    try:
        load(volume)
    except NotFound as exc:
        if "nofail" not in ",".join(texts).split(","):
            raise
        click.echo(f"mount.tonfs: {exc.message} With nofail that is no error.", err=True)
        return
    _check_point(call.directory)
    start_front(volume, call.directory, (*_said_by_silence(texts), *texts))
    if call.verbose:
        click.echo(f"mount.tonfs: {volume} is mounted at {call.directory}.", err=True)


def mounts_all(parent: int | None = None) -> bool:
    """`mount -a` called us. It skips what is mounted already, but for us it looks for the volume's path in the mount
    table, where it stands as ton://PATH."""
    try:
        words = Path(f"/proc/{parent or os.getppid()}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    if os.path.basename(words[0]) != b"mount":
        return False
    return any(word == b"--all" or re.match(rb"-[fFnrsvw]*a", word) for word in words[1:])


def _is_there(volume: Path, directory: Path) -> bool:
    from ..fuse import find_mount, is_dead, real_path, volume_of

    there = find_mount(os.path.realpath(directory)) or find_mount(real_path(directory))
    return there is not None and volume_of(there.source) == volume and not is_dead(there.point)


def _said_by_silence(texts: Sequence[str]) -> list[str]:
    """For mount(8) set-id programs and devices work unless an option says no (`user` makes it say so): it never passes
    `suid` and `dev` on. For FUSE it is the other way round."""
    given = {word for text in texts for word in text.split(",")}
    return [] if os.geteuid() != 0 else [word for word in ("suid", "dev") if f"no{word}" not in given]


def remount(directory: Path, texts: Sequence[str]) -> None:
    """The kernel changes its own flags (ro, nosuid, ...) under the running front; our options must stay as they are.

    Raises Refused, NotFound, UsageError.
    """
    from ..fuse import MountOptions, change_flags, is_dead, parse_options, real_path, tonfs_mount

    point = real_path(directory)
    volume = tonfs_mount(point)
    if is_dead(point):
        raise Refused(f"The mount at {point} is dead, its process has ended.", hint=f"Mount it again: mount {point}")
    wanted = parse_options(tuple(texts))
    present = call_sync(volume / "run" / "front.sock", "ping", who="front", timeout=10.0)["options"]
    if wanted.volume is not None and volume_path(wanted.volume) != volume:
        raise Refused(f"Another volume is mounted at {point}: {volume}.", hint=f"Unmount it first: umount {point}")
    default = MountOptions(allow_other=os.geteuid() == 0)  # root's mounts are always open to others
    for field in fields(MountOptions):
        if field.name in ("volume", "read_only", "remount", "kernel"):
            continue
        value = getattr(wanted, field.name)
        if value not in (getattr(default, field.name), present.get(field.name)):
            raise Refused(
                f"The option {field.name} cannot change while the volume is mounted.",
                hint="Unmount, then mount with the new options.",
            )
    flags = [name for text in texts for name in text.split(",") if name in ("ro", "rw")] or ["rw"]
    change_flags(point, [flags[-1], *(name for name in wanted.kernel if "=" not in name and name != "ro")])


def exit_code(exc: BaseException) -> int:
    """mount(8)'s code for what went wrong."""
    if isinstance(exc, UsageError):
        return USAGE
    if isinstance(exc, TonfsError):
        return FAILED
    if isinstance(exc, OSError):
        return SYSTEM
    return INTERRUPTED if isinstance(exc, KeyboardInterrupt) else BUG


def guarded(name: str, work: Callable[[], None]) -> int:
    """Run it; errors become a line on stderr and one of mount(8)'s exit codes."""
    os.environ.setdefault("PATH", PATH)
    log.configure(logging.WARNING, "text")
    try:
        work()
    except TonfsError as exc:
        click.echo(f"{name}: {exc.message} [{exc.code}]", err=True)
        if exc.hint:
            click.echo(f"{' ' * len(name)}  {exc.hint}", err=True)
        return exit_code(exc)
    except OSError as exc:
        click.echo(f"{name}: {exc.strerror or exc}: {exc.filename or 'system'}", err=True)
        return exit_code(exc)
    except (Exception, KeyboardInterrupt) as exc:
        if os.environ.get("TONFS_DEBUG"):
            traceback.print_exc()
        click.echo(f"{name}: {type(exc).__name__}: {exc}", err=True)
        return exit_code(exc)
    return 0


HELP: Final = """Usage: mount.tonfs SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS]

What mount(8) runs for 'mount -t tonfs SOURCE DIR -o OPTIONS'. SOURCE is a volume's path or name."""


def run_mount(argv: Sequence[str]) -> int:
    if argv and argv[0] in ("-h", "--help", "-V", "--version"):
        click.echo(HELP if argv[0] in ("-h", "--help") else f"mount.tonfs from tonfs {__version__}")
        return 0
    return guarded("mount.tonfs", lambda: mount(parse_call(argv)))


def is_fuse_call(argv: Sequence[str]) -> bool:
    """Is this `tonfs SOURCE DIR -o OPTIONS`, as mount.fuse runs it for `mount -t fuse.tonfs SOURCE DIR`?"""
    return len(argv) == 4 and argv[2] == "-o" and not argv[0].startswith("-")


def mount_main() -> None:
    sys.exit(run_mount(sys.argv[1:]))
