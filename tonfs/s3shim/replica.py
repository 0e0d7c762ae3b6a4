"""Where an object's bytes are, as headers: `x-amz-replication-status`, and by option `x-amz-meta-tonfs-*` on HEAD."""

from __future__ import annotations

from typing import Final

from ..errors import TonfsError
from ..volume.api import Attr
from .door import Door, Headers

_DONE: Final = frozenset({b"proven", b"empty"})
_SHOWN: Final = ("state", "replicas", "bag")


def headers(door: Door, attr: Attr, *, head: bool) -> Headers:
    """COMPLETED once enough audited providers hold every byte, PENDING before; none on a volume without a network."""
    if not door.replicated or not attr.is_file:
        return []
    state = _value(door, attr, "state")
    out: Headers = []
    if state:
        out.append(("x-amz-replication-status", "COMPLETED" if state in _DONE else "PENDING"))
    if head and door.show_state:
        for word in _SHOWN:
            value = _value(door, attr, word)
            if value:
                out.append((f"x-amz-meta-tonfs-{word}", value.decode("ascii", "replace")))
    return out


def _value(door: Door, attr: Attr, word: str) -> bytes:
    try:
        return door.namespace.get_xattr(attr.inode, f"user.tonfs.{word}".encode())
    except TonfsError:
        return b""
