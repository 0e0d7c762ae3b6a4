"""`tonfs doctor`: checks the machine and says what to do."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from ..config import CONFIG_NAME, load
from .common import Context, emit, json_option, pass_context, volume_option


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    found: str
    advice: str = ""


def _machine() -> Iterator[Check]:
    version = ".".join(str(n) for n in sys.version_info[:3])
    yield Check("python", sys.version_info >= (3, 11), version, "tonfs needs Python 3.11 or newer.")
    fusermount = shutil.which("fusermount3")
    yield Check("fuse3", fusermount is not None, fusermount or "missing", "Install it: apt-get install fuse3")
    device = Path("/dev/fuse")
    usable = os.access(device, os.R_OK | os.W_OK)
    advice = "Ask root to open it to you: chmod 666 /dev/fuse" if device.exists() else "Load the module: modprobe fuse"
    yield Check("/dev/fuse", usable, "usable" if usable else "not usable", advice)
    library = importlib.util.find_spec("pyfuse3") is not None
    yield Check("pyfuse3", library, "present" if library else "missing", "Run 'make setup' again.")
    emulator = importlib.util.find_spec("pytvm") is not None
    advice = "The devnet needs it: pip install 'tonfs[devnet]' (CPython 3.11 on x86_64)."
    yield Check("devnet emulator", emulator, "present" if emulator else "missing", advice)
    limit = Path("/proc/sys/net/core/rmem_max")
    size = int(limit.read_text(encoding="ascii")) if limit.exists() else 0
    yield Check("socket buffers", size >= 212992, f"{size} bytes", "Raise net.core.rmem_max to 4194304 for speed.")


def _at_home() -> Iterator[Check]:
    """What makes mount(8), other users and systemd work; missing parts are no fault, only dead ones are."""
    from .helper import LINKS, SBIN, unit_directory

    for name in LINKS:
        path = SBIN / name
        if not os.path.lexists(path):
            yield Check(name, True, f"not installed; 'tonfs helper install' (as root) makes 'mount -t {name[6:]}' work")
        else:
            target = os.path.realpath(path)
            there = os.access(target, os.X_OK)
            advice = "Run as root: tonfs helper remove && tonfs helper install"
            yield Check(name, there, target if there else f"leads to {target}, which is gone", advice)
    if os.geteuid() != 0:
        yield _others()
    for kind in ("system", "user"):
        for unit in sorted(unit_directory(kind).glob("tonfs*.service")):
            yield _unit(unit)


def _others() -> Check:
    """May a user's mounts be opened to others?"""
    try:
        lines = Path("/etc/fuse.conf").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    allowed = "user_allow_other" in (line.strip() for line in lines)
    text = "users may open their mounts to others" if allowed else "allow_other is for root only (no user_allow_other)"
    return Check("/etc/fuse.conf", True, text)


def _unit(path: Path) -> Check:
    """A unit file that starts a program which is gone is worth a word."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as exc:
        return Check(path.name, False, f"{path} cannot be read: {exc.strerror}", "Look at its permissions.")
    started = [line.partition("=")[2] for line in text.splitlines() if line.startswith("ExecStart=")]
    programs = [shlex.split(line)[0] for line in started if line]
    gone = [program for program in programs if not os.access(program, os.X_OK)]
    advice = "Write it again: tonfs helper units" + (" --system" if path.is_relative_to("/etc") else "")
    return Check(path.name, not gone, f"{path} starts {gone[0]}, which is gone" if gone else str(path), advice)


def _volume(context: Context) -> Iterator[Check]:
    volume = context.volume
    if not (volume / CONFIG_NAME).exists():
        yield Check("volume", True, f"none at {volume} yet; 'tonfs up' makes one")
        return
    settings, _ = load(volume)
    yield Check("volume", True, f"{volume} ({settings.network})")
    keys = volume / "keys"
    private = not keys.exists() or keys.stat().st_mode & 0o077 == 0
    yield Check("keys are private", private, str(keys), f"Run: chmod 700 {keys}")
    host, _, port = settings.s3.listen.rpartition(":")
    running = (volume / "run" / "front.sock").exists()
    free = True
    if not running:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, int(port)))
            except OSError:
                free = False
    text = "in use by tonfs" if running else "free" if free else "taken"
    yield Check(f"S3 port {settings.s3.listen}", free, text, "Set s3.listen in config.toml, or up --s3 HOST:PORT.")


@click.command(help="Check this machine and say what to do.")
@json_option
@volume_option
@pass_context
def command(context: Context, as_json: bool) -> None:
    checks = [*_machine(), *_at_home(), *_volume(context)]
    bad = [c for c in checks if not c.ok]
    if as_json:
        emit("doctor", {"ok": not bad, "checks": [asdict(c) for c in checks]})
    else:
        for check in checks:
            click.echo(f"{'ok ' if check.ok else 'BAD'} {check.name}: {check.found}")
            if not check.ok:
                click.echo(f"      {check.advice}")
    if bad:
        raise SystemExit(1)
