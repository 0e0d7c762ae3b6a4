"""Mount points: what is mounted where, cleaning up dead ones, unmounting.

Nothing here may touch a mount of this very process (reference fuse.md, trap (a)): the table is read from
/proc/self/mountinfo, unmounting is done by a program of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from ..errors import Busy, NotFound, Refused, TimedOut, TonfsError, UsageError

FS_TYPE: Final = "fuse.tonfs"


@dataclass(frozen=True)
class Mounted:
    """A line of mountinfo."""

    point: str
    source: str
    type: str
    device: str
    """major:minor."""


def source_of(volume: Path) -> str:
    """What /proc/mounts shows as the device of a mounted volume: ASCII, no commas, no spaces."""
    return "ton://" + quote(os.fsencode(volume), safe="/")


def volume_of(source: str) -> Path | None:
    """The volume's directory behind a mount's source."""
    if not source.startswith("ton://"):
        return None
    return Path(os.fsdecode(unquote_to_bytes(source[len("ton://") :])))


def _unescape(word: str) -> str:
    raw = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), os.fsencode(word))
    return os.fsdecode(raw)


def mounts(process: int | str = "self") -> list[Mounted]:
    """All mounts of a process's mount name space, the topmost last. Raises OSError for another user's process."""
    out = []
    with open(f"/proc/{process}/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            left, _, right = line.rstrip("\n").partition(" - ")
            fields, tail = left.split(" "), right.split(" ")
            out.append(Mounted(_unescape(fields[4]), _unescape(tail[1]), tail[0], fields[2]))
    return out


def find_mount(point: str) -> Mounted | None:
    """What is mounted at exactly this path (absolute, without symlinks); the topmost one."""
    found = [mount for mount in mounts() if mount.point == point]
    return found[-1] if found else None


def where_mounted(volume: Path, process: int | str = "self") -> str | None:
    """A directory where the volume is mounted, in the mount name space of a process."""
    try:
        table = mounts(process)
    except OSError:
        return None
    source = source_of(volume)
    return next((mount.point for mount in table if mount.type == FS_TYPE and mount.source == source), None)


def real_path(directory: Path) -> str:
    """Absolute path of a mount point without asking the file system mounted there: only its parents are resolved."""
    absolute = os.path.abspath(directory)
    parent, name = os.path.split(absolute)
    return os.path.join(os.path.realpath(parent), name) if name else absolute


def is_dead(point: str) -> bool:
    """Something is mounted there and its process is gone.

    One of ours that was killed and cannot end is freed first. statfs is never answered from the kernel's caches; stat
    of a dead mount's root may be, for as long as our attributes are good.
    """
    there = find_mount(point)
    volume = volume_of(there.source) if there is not None and there.type == FS_TYPE else None
    if volume is not None:
        free_stuck(volume)
    try:
        os.statvfs(point)
    except OSError as exc:
        return exc.errno == errno.ENOTCONN
    return False


def free_stuck(volume: Path) -> None:
    """A front that was killed while a thread of it waited for its own mount cannot end: it holds the volume, and who
    uses the mount waits for ever. Have the kernel give that mount up, and wait until the front is gone. Blocks."""
    try:
        tasks = Path(f"/proc/{int((volume / 'run' / 'front.lock').read_text(encoding='ascii'))}/task")
    except (OSError, ValueError):
        return
    for _ in range(50):
        if not _is_stuck(tasks):
            return
        for there in mounts():
            if there.type == FS_TYPE and volume_of(there.source) == volume:
                _abort(there)
        time.sleep(0.1)


def _is_stuck(tasks: Path) -> bool:
    """The first thread of the process has ended, others have not."""
    try:
        first = (tasks / tasks.parent.name / "stat").read_bytes()
        return first.rpartition(b")")[2].split()[0] == b"Z" and len(os.listdir(tasks)) > 1
    except OSError:
        return False


def _abort(there: Mounted) -> None:
    with contextlib.suppress(OSError):
        Path(f"/sys/fs/fuse/connections/{there.device.split(':')[1]}/abort").write_text("1", encoding="ascii")
        return
    if os.geteuid() == 0:  # where these files are not mounted
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(["umount", "-i", "-f", "--", there.point], capture_output=True, timeout=10.0, check=False)


def _unmount_command(point: str, *, lazy: bool) -> list[str]:
    if os.geteuid() == 0:
        return ["umount", "-l" if lazy else "-i", "--", point]
    program = shutil.which("fusermount3") or "fusermount3"
    return [program, "-uz" if lazy else "-u", "--", point]


def unmount(point: str, *, lazy: bool = False, timeout: float = 60.0) -> None:
    """Run umount or fusermount3. Raises Busy, Refused, TimedOut; no error when nothing is mounted there. Blocks."""
    if find_mount(point) is None:
        return
    try:
        done = subprocess.run(
            _unmount_command(point, lazy=lazy),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimedOut(f"Unmounting {point} took longer than {timeout:g} s.") from None
    except FileNotFoundError as exc:
        raise UsageError(f"{exc.filename} is not installed.", hint="Install the package fuse3.") from None
    if done.returncode != 0 and find_mount(point) is not None:
        text = done.stderr.strip() or f"exit status {done.returncode}"
        if "busy" in text:
            raise Busy(f"{point} is in use.", hint=f"Close what uses it ('fuser -vm {point}' shows it).")
        if os.geteuid() != 0:
            # fusermount3 wants an /etc/mtab, which small systems do not have; umount(8) knows whose mount it is.
            again = subprocess.run(
                ["umount", *(["-l"] if lazy else []), "--", point], capture_output=True, timeout=timeout, check=False
            )
            if again.returncode == 0:
                return
            raise Refused(
                f"{point} cannot be unmounted: {text}.", hint="Whoever mounted it can, and root: is it another user's?"
            )
        raise Refused(f"{point} cannot be unmounted: {text}.")


def tonfs_mount(point: str) -> Path:
    """The directory of the volume that is mounted at exactly this path. Raises NotFound."""
    there = find_mount(point)
    volume = volume_of(there.source) if there is not None and there.type == FS_TYPE else None
    if volume is None:
        raise NotFound(f"No tonfs volume is mounted at {point}.", hint=_instead(point))
    return volume


def _instead(point: str) -> str:
    """What somebody may have meant who named a directory that is no mount of ours."""
    table = mounts()
    for mount in table:
        if mount.type == FS_TYPE and volume_of(mount.source) == Path(point):
            return f"That is a volume; it is mounted at {mount.point}."
    if any(mount.point == point and mount.type == FS_TYPE for mount in table):
        return f"Something else is mounted over it; unmount that first: umount {point}"
    for mount in table:
        if mount.type == FS_TYPE and point.startswith(mount.point + "/"):
            return f"It lies in the mount at {mount.point}."
    return "'findmnt -t fuse.tonfs' lists what is mounted."


def change_flags(point: str, flags: list[str]) -> None:
    """Have the kernel change flags (ro, rw, nosuid, ...) of a mount. Raises Refused, TimedOut. Blocks."""
    if os.geteuid() != 0:
        raise Refused("Only root can remount.", hint="Unmount, then mount with the new options.")
    words = ["mount", "-i", "-o", ",".join(["remount", *flags]), "--", point]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60.0, check=False)
    except subprocess.TimeoutExpired:
        raise TimedOut(f"Remounting {point} took longer than a minute.") from None
    if done.returncode != 0:
        text = done.stderr.strip()
        if "busy" in text:
            raise Busy(f"{point} is in use: files are open for writing.", hint=f"'fuser -vm {point}' shows by whom.")
        raise Refused(f"{point} cannot be remounted: {text.splitlines()[0] if text else done.returncode}.")


def prepare(directory: Path, volume: Path | None = None) -> str:
    """Check a mount point, cleaning up a dead mount of ours first. Returns its real path. Raises TonfsError.

    `volume` must not be found at or below it: the front would wait for itself at every step.
    """
    point = real_path(directory)
    there = find_mount(point)
    if there is not None and there.type.startswith("fuse") and is_dead(point):
        if there.type != FS_TYPE:
            raise Busy(f"A dead mount of {there.type} is at {point}.", hint=f"Unmount it: umount -l {point}")
        unmount(point, lazy=True)
        there = find_mount(point)
    if there is not None and there.type == FS_TYPE:
        mounted = volume_of(there.source) or there.source
        raise Busy(f"The volume {mounted} is mounted at {point}.", hint=f"Unmount it: tonfs umount {point}")
    try:
        if os.path.islink(point):
            point = os.path.realpath(point)
        if not os.path.isdir(point):
            if os.path.lexists(point):
                raise UsageError(f"{point} is not a directory.")
            os.makedirs(point)
        if os.geteuid() != 0 and not os.access(point, os.W_OK):
            raise Refused(f"{point} is not yours to mount on.", hint="Choose a directory you may write to.")
        if volume is not None and Path(os.path.realpath(volume)).is_relative_to(os.path.realpath(point)):
            raise Refused(
                f"The volume {volume} lies in {point}, and a mount there would hide it.",
                hint="Choose another directory.",
            )
    except OSError as exc:
        raise _cannot(point, exc) from None
    return point


def _cannot(point: str, exc: OSError) -> TonfsError:
    if exc.errno == errno.ENOENT:
        return NotFound(f"{point} does not exist.")
    return Refused(f"{point} cannot be used as a mount point: {exc.strerror}.")


def refusal(point: str, said: str) -> Refused:
    """What libfuse or fusermount3 said when it did not mount, with what to do."""
    hint = None
    if "user_allow_other" in said:
        hint = "Ask root to put the line user_allow_other into /etc/fuse.conf, or leave allow_other out."
    elif "/dev/fuse" in said and "ermission" in said:
        hint = "Ask root to open it to you: chmod 666 /dev/fuse"
    elif "username" in said:
        hint = f"fusermount3 mounts for users that /etc/passwd knows; {os.geteuid()} is not among them."
    elif "not permitted" in said:
        hint = "Is fusermount3 set-user-ID root? In a container, mounting must be allowed, too."
    return Refused(f"{point} cannot be mounted: {said}.", hint=hint)


def check_fuse() -> None:
    """Raises Refused, with what to do, when this machine cannot mount at all."""
    if not os.path.exists("/dev/fuse"):
        raise Refused("There is no /dev/fuse.", hint="Load the kernel module fuse, or allow it in the container.")
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise Refused("fusermount3 is not installed.", hint="Install the package fuse3.")


def tune(point: str, *, read_ahead_kib: int = 1024, background: int = 64) -> None:
    """As root: larger read-ahead, more requests in flight. Quietly nothing where that is not allowed."""
    there = find_mount(point)
    if there is None:
        return
    minor = there.device.split(":")[1]
    for path, value in (
        (f"/sys/class/bdi/{there.device}/read_ahead_kb", read_ahead_kib),
        (f"/sys/fs/fuse/connections/{minor}/max_background", background),
        (f"/sys/fs/fuse/connections/{minor}/congestion_threshold", background * 3 // 4),
    ):
        try:
            with open(path, "w", encoding="ascii") as stream:
                stream.write(str(value))
        except OSError:
            continue
