"""`tonfs policy show|set|unset PATH`: what holds for a path and below; extended attributes of the mounted files."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator

import click

from ..errors import FsError, NotFound, UsageError
from ..fuse import FS_TYPE, mounts
from ..policy import PATH_POLICIES, PATH_POLICY_PREFIX, check_path_policy, path_policy
from .common import Context, emit, json_option, pass_context


def mount_of(path: str) -> str:
    """The tonfs mount that a real path lies in. Raises NotFound."""
    points = [mount.point for mount in mounts() if mount.type == FS_TYPE]
    inside = [point for point in points if path == point or path.startswith(point.rstrip("/") + "/")]
    if not inside:
        raise NotFound(f"{path} does not lie in a mounted tonfs volume.", hint="Mount it: tonfs mount DIR")
    return max(inside, key=len)


def _upwards(path: str) -> Iterator[str]:
    """The path and every directory above it, up to the root of its mount."""
    top = mount_of(path)
    while True:
        yield path
        if path == top:
            return
        path = os.path.dirname(path)


def _failed(path: str, exc: OSError) -> FsError:
    return FsError(f"{path}: {exc.strerror}.", exc.errno or errno.EIO)


def value_at(path: str, name: str) -> str | None:
    """What the path itself says."""
    try:
        return os.getxattr(path, PATH_POLICY_PREFIX + name, follow_symlinks=False).decode("ascii", "replace")
    except OSError as exc:
        if exc.errno == errno.ENODATA:
            return None
        raise _failed(path, exc) from None


def effective(path: str) -> dict[str, tuple[str, str]]:
    """Policy -> (value, path that says so), the nearest word first."""
    found: dict[str, tuple[str, str]] = {}
    for place in _upwards(path):
        for name in PATH_POLICIES:
            value = value_at(place, name)
            if value is not None:
                found.setdefault(name, (value, place))
    return found


def set_policy(path: str, name: str, text: str) -> None:
    """Raises UsageError, Unsupported, NotFound, FsError."""
    value = path_policy(name, text)
    mount_of(path)
    try:
        os.setxattr(path, PATH_POLICY_PREFIX + name, value.encode(), follow_symlinks=False)
    except OSError as exc:
        raise _failed(path, exc) from None


def unset_policy(path: str, name: str) -> None:
    """Nothing happens when the path says nothing."""
    mount_of(path)
    try:
        os.removexattr(path, PATH_POLICY_PREFIX + name, follow_symlinks=False)
    except OSError as exc:
        if exc.errno != errno.ENODATA:
            raise _failed(path, exc) from None


def parse_settings(settings: Iterable[str]) -> list[tuple[str, str]]:
    """NAME=VALUE, all of them checked. Raises UsageError, Unsupported."""
    pairs = []
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"{name!r} has no value.", hint=f"Write it as {name}=VALUE.")
        pairs.append((name, path_policy(name, value)))
    return pairs


@click.group(help="What holds for a path and everything below it.")
def command() -> None:
    """Policies of directories and files; those of the volume are in config.toml."""


@command.command(help="Show what holds for PATH, and which directory says so.")
@click.argument("path", type=click.Path())
@json_option
@pass_context
def show(context: Context, path: str, as_json: bool) -> None:
    found = effective(os.path.realpath(path))
    if as_json:
        emit("policy", {"path": path, "policies": {n: {"value": v, "from": p} for n, (v, p) in found.items()}})
        return
    for name, (value, place) in found.items():
        click.echo(f"{name} = {value}   # {place}")
    if not found and not context.quiet:
        click.echo("Nothing is said for this path; the volume's settings hold.", err=True)


@command.command(
    "set", help="Set policies of PATH: pin=true (local copies below it stay), replicas=N (this many providers hold it)."
)
@click.argument("path", type=click.Path())
@click.argument("settings", nargs=-1, required=True, metavar="NAME=VALUE…")
def set_values(path: str, settings: tuple[str, ...]) -> None:
    for name, value in parse_settings(settings):
        set_policy(os.path.realpath(path), name, value)


@command.command(help="Take policies of PATH back; what its directories say holds again.")
@click.argument("path", type=click.Path())
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
def unset(path: str, names: tuple[str, ...]) -> None:
    for name in names:
        check_path_policy(name)
        unset_policy(os.path.realpath(path), name)
