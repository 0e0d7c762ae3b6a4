"""Frames of the control sockets, and socket paths of any length."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ..errors import BadPacket

MAX_FRAME: Final = 16 << 20
HEADER: Final = struct.Struct(">I")


def encode(message: dict[str, Any]) -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(body) > MAX_FRAME:
        raise BadPacket(f"A control message of {len(body)} bytes is over the limit of {MAX_FRAME}.")
    return HEADER.pack(len(body)) + body


def length(header: bytes) -> int:
    """Body length of a frame. Raises BadPacket over the limit."""
    size: int = HEADER.unpack(header)[0]
    if size > MAX_FRAME:
        raise BadPacket(f"A control message announces {size} bytes, over the limit of {MAX_FRAME}.")
    return size


def decode(body: bytes) -> dict[str, Any]:
    """The JSON object of a frame. Raises BadPacket."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise BadPacket(f"A control message is not JSON: {exc}") from None
    if not isinstance(message, dict):
        raise BadPacket("A control message is not a JSON object.")
    return message


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name for `path` that fits the 108 bytes of sockaddr_un, whatever the directory's length."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)
