"""Mount options: ours, those that go on to the kernel, those that mount(8) keeps for itself.

Reference cli.md section 2 (last line) and fuse.md section 5. An unknown option is refused with the nearest match.
"""

from __future__ import annotations

import difflib
import grp
import pwd
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..errors import UsageError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


KERNEL_FLAGS: Final = _words(
    "ro rw suid nosuid dev nodev exec noexec async sync dirsync atime noatime diratime nodiratime "
    "relatime norelatime strictatime nostrictatime"
)
"""Understood by libfuse or mount(2)."""

IGNORED: Final = _words(
    "defaults auto noauto nofail _netdev user nouser users owner group quiet lazytime nolazytime mand nomand "
    "iversion noiversion silent loud default_permissions"
)
"""Meant for mount(8), systemd or fstab, or always on."""

_PLAIN: Final = (IGNORED | {"remount"}) - {"user", "owner", "group"}
"""Take no value; `default_permissions=0` would ask for what will not be."""

_LIBFUSE_TAKES: Final = _words("ro rw suid nosuid dev nodev exec noexec async sync dirsync noatime")
"""libfuse knows no more; the other words are about access times, which reading never changes here."""
_SHOWN_BY_KERNEL: Final = _words("user_id group_id rootmode fd blksize")
"""In /proc/mounts of every FUSE mount; `mount -o remount` hands them back."""
OURS: Final = (
    "volume",
    "uid",
    "gid",
    "umask",
    "allow_other",
    "cache_size",
    "deadline",
    "offline",
    "s3",
    "show_control",
)

_NAMED: Final = "The mount table shows the volume as source and fuse.tonfs as type; `volume=` names the volume."
_ALWAYS: Final = "Leave it out: tonfs does this always."
_NOT_OURS: Final = {
    "fsname": _NAMED,
    "subtype": _NAMED,
    "nosymfollow": "libfuse does not know it. Once mounted, as root: mount -i -o remount,bind,nosymfollow DIR",
    "nonempty": _ALWAYS,
    "big_writes": _ALWAYS,
    "auto_unmount": "Leave it out: the next mount cleans up after a front that was killed.",
    "max_read": "Leave it out: the kernel asks for as much as it can use.",
    "allow_root": "There is allow_other, for root and all others.",
    "readonly": "Did you mean 'ro'?",
    "read_only": "Did you mean 'ro'?",
    "dmask": "Did you mean 'umask'? It holds for files and directories.",
    "fmask": "Did you mean 'umask'? It holds for files and directories.",
    "mode": "Did you mean 'umask'? It says what is taken away.",
}
"""Options that somebody may expect -> what to do instead."""
_TAKES: Final = {
    "uid": "a user's number or name",
    "gid": "a group's number or name",
    "umask": "an octal number up to 777",
    "cache_size": "a size like 4096, 500M or 4G",
    "deadline": "a time like 30s, 2m or 1h",
}


@dataclass(frozen=True)
class MountOptions:
    """Parsed `-o`. None means: not given."""

    volume: str | None = None
    read_only: bool = False
    uid: int | None = None
    """Show every file as owned by this user."""
    gid: int | None = None
    umask: int | None = None
    """Permission bits that no file shows."""
    allow_other: bool = False
    cache_size: int | None = None
    """Bytes of local copies to keep; proven ones beyond it are evicted, oldest change first."""
    deadline: float | None = None
    """Seconds a read may wait for the network."""
    remount: bool = False
    """Change the flags of what is mounted already."""
    offline: bool = False
    """Never ask the agent: reading what is not here fails at once."""
    s3: str | None = None
    """HOST:PORT of the S3 door; "" for none."""
    show_control: bool = False
    """List `.tonfs` in the root; it can be opened either way."""
    kernel: tuple[str, ...] = ()
    """Options that go to libfuse as they are."""


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d{1,15})([kKmMgGtT]?)(iB|B)?", text)
    if match is None:
        raise ValueError(text)
    base = 1000 if match[3] == "B" and match[2] else 1024
    factor: int = base ** " kmgt".index(match[2].lower() or " ")
    return int(match[1]) * factor


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)(s|m|h)?", text)
    if match is None or float(match[1]) <= 0:
        raise ValueError(text)
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2] or "s"]


def _parts(text: str) -> list[str]:
    r"""Options between commas, as they stand; a comma after `\` or in a value between quotes (mount(8)) is none."""
    return re.findall(r'((?:\\,|(?<==)"[^"]*"(?=,|$)|[^,])+)', text)


def _split(text: str) -> list[str]:
    """Options, with nothing around their values."""
    out = []
    for part in _parts(text):
        name, equals, value = part.strip().partition("=")
        quoted = len(value) > 1 and value[0] == value[-1] == '"'
        out.append(name + equals + (value[1:-1] if quoted else value.replace("\\,", ",")))
    return out


def parse_options(texts: tuple[str, ...]) -> MountOptions:
    """Every `-o` argument, in order; later ones win. Raises UsageError."""
    given: dict[str, str | None] = {}
    for text in texts:
        for word in _split(text):
            if not word:
                continue
            name, equals, value = word.partition("=")
            if not _is_known(name):
                raise _unknown(name)
            if name in KERNEL_FLAGS or name in _PLAIN:
                _needs(name, value if equals else None, wanted=False)
                given[name] = None
            elif name in OURS:
                given[name] = value if equals else None
    return _build(given)


def _is_known(name: str) -> bool:
    return name in KERNEL_FLAGS or name in OURS or name == "remount" or _is_ignored(name)


def _is_ignored(name: str) -> bool:
    return name.startswith(("x-", "X-")) or name in IGNORED or name in _SHOWN_BY_KERNEL or name == "comment"


def known_options(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The options without those that nobody knows (mount -s: "tolerate sloppy options")."""
    out = []
    for text in texts:
        words = _parts(text)
        names = [word.strip().partition("=")[0] for word in words]
        out.append(",".join(w for w, n in zip(words, names, strict=True) if n and _is_known(n)))
    return tuple(out)


def _nearest(name: str, known: list[str]) -> str | None:
    """The same letters but for order and separators, the beginning of one name only, or the most alike."""
    for option in known:
        if len(name) > 1 and sorted(option.replace("_", "")) == sorted(name.replace("_", "")):
            return option
    begun = [option for option in OURS if len(name) > 2 and option.startswith(name)]
    near = begun if len(begun) == 1 else difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return near[0] if near else None


def _unknown(name: str) -> UsageError:
    known = [*OURS, *sorted(KERNEL_FLAGS), *sorted(IGNORED)]
    near = _nearest(name.lower().replace("-", "_"), known)
    hint = f"Did you mean {near!r}?" if near else f"tonfs knows {', '.join(OURS)} and the options of mount(8)."
    hint = _NOT_OURS.get(name, hint)
    return UsageError(f"Unknown mount option {name!r}.", hint=hint)


def _needs(name: str, value: str | None, *, wanted: bool) -> str:
    if wanted and not value and name != "s3":
        raise UsageError(f"The mount option {name} needs a value: {name}=…")
    if not wanted and value is not None:
        raise UsageError(f"The mount option {name} takes no value.")
    return value or ""


def _build(given: dict[str, str | None]) -> MountOptions:
    kernel = [name for name in given if name in _LIBFUSE_TAKES and name not in ("ro", "rw")]
    read_only = "ro" in given and ("rw" not in given or list(given).index("ro") > list(given).index("rw"))
    if read_only:
        kernel.append("ro")
    for name in ("allow_other", "offline", "remount", "show_control"):
        if name in given:
            _needs(name, given[name], wanted=False)

    def value(name: str) -> str | None:
        return _needs(name, given[name], wanted=True) if name in given else None

    try:
        field = "uid"
        uid = _account(value(field), lambda name: pwd.getpwnam(name).pw_uid)
        field = "gid"
        gid = _account(value(field), lambda name: grp.getgrnam(name).gr_gid)
        field = "umask"
        umask = _number(value(field), 8)
        field = "cache_size"
        size = value(field)
        cache_size = None if size is None else _size(size)
        field = "deadline"
        wait = value(field)
        deadline = None if wait is None else _duration(wait)
    except ValueError:
        raise _wrong(field, given[field]) from None
    if umask is not None and umask > 0o777:
        raise _wrong("umask", given["umask"])
    return MountOptions(
        volume=value("volume"),
        read_only=read_only,
        uid=uid,
        gid=gid,
        umask=umask,
        allow_other="allow_other" in given,
        remount="remount" in given,
        cache_size=cache_size,
        deadline=deadline,
        offline="offline" in given,
        s3=value("s3"),
        show_control="show_control" in given,
        kernel=tuple(kernel),
    )


def _wrong(name: str, value: str | None) -> UsageError:
    return UsageError(f"The mount option {name}={value} has a wrong value.", hint=f"It takes {_TAKES[name]}.")


def _account(text: str | None, find: Callable[[str], int]) -> int | None:
    """A user's or group's number, given as such or by name."""
    if text is None or re.fullmatch(r"[0-9]+", text):
        return _number(text, 10)
    try:
        return find(text)
    except KeyError:
        raise ValueError(text) from None


def _number(text: str | None, base: int) -> int | None:
    if text is None:
        return None
    number = int(text, base)
    if not 0 <= number < (1 << 32) - 1 or not re.fullmatch(r"[0-9]+", text):
        raise ValueError(text)
    return number
