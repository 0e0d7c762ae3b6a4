"""The first exchange with the kernel, where it and libfuse agree on features; here with one more than pyfuse3 can ask.

FUSE_HANDLE_KILLPRIV_V2 (Linux 5.12): we clear set-id bits on writes, truncations and changes of owner, as `setid.py`
does. Without it the kernel asks before every write(2) whether the file has capabilities, which is half of the requests
of a program that writes pages.

libfuse answers the kernel's first request by itself. For that one exchange its descriptor is a socket of ours: the
request goes in as the kernel sent it, the answer comes out and goes to the kernel with the flag set; then the
descriptor is the kernel's again.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final

import pyfuse3

from .gate import Gate

WaitReadable = Callable[[int], Awaitable[None]]

_INIT: Final = 26
_REQUEST: Final = struct.Struct("<II32xIIII")
"""length, opcode, ...; major, minor, max_readahead, flags"""
_REPLY: Final = struct.Struct("<Ii8xIIII")
"""length, error, ...; the same four"""
_FLAGS_AT: Final = 28
KILLPRIV: Final = 1 << 19
KILLPRIV_V2: Final = 1 << 28
_LARGEST: Final = (1 << 20) + 4096
_PATIENCE_MS: Final = 5000


def with_flag(request: bytes, reply: bytes) -> bytes:
    """The reply with KILLPRIV_V2 in it, if the kernel offers it and everything looks as expected."""
    if len(request) < _REQUEST.size or len(reply) < _REPLY.size:
        return reply
    _, opcode, major, _, _, offered = _REQUEST.unpack_from(request)
    length, error, ours, _, _, taken = _REPLY.unpack_from(reply)
    if opcode != _INIT or major != 7 or ours != 7 or error or length != len(reply):
        return reply
    if not offered & KILLPRIV_V2 or taken & KILLPRIV:
        return reply
    changed = bytearray(reply)
    struct.pack_into("<I", changed, _FLAGS_AT, taken | KILLPRIV_V2)
    return bytes(changed)


class Handshake:
    """Stands before the loop's own `wait_readable` until the exchange is over. `agreed` is told the descriptor, and
    whether the flag was taken."""

    def __init__(self, then: WaitReadable, agreed: Callable[[int, bool], None]) -> None:
        self._then = then
        self._agreed = agreed
        self._request = b""
        self._kernel = -1
        self._ours: socket.socket | None = None
        self._over = False

    async def wait_readable(self, fd: int) -> None:
        if not self._over:
            if self._ours is None:
                self._offer(fd)
                if not self._over:
                    return
            else:
                self._take(fd)
        await self._then(fd)

    def _offer(self, fd: int) -> None:
        """libfuse reads the kernel's request from a socket."""
        asker = select.poll()
        asker.register(fd, select.POLLIN)
        if not asker.poll(_PATIENCE_MS):
            self._over = True
            return
        self._request = os.read(fd, _LARGEST)
        self._kernel = os.dup(fd)
        theirs, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            os.dup2(theirs.fileno(), fd, inheritable=False)
        self._ours.send(self._request)

    def _take(self, fd: int) -> None:
        """libfuse has answered; the descriptor goes back to the kernel."""
        assert self._ours is not None
        self._over = True
        with self._ours:
            reply = self._ours.recv(_LARGEST, socket.MSG_DONTWAIT)
        os.dup2(self._kernel, fd, inheritable=False)
        os.close(self._kernel)
        changed = with_flag(self._request, reply)
        os.write(fd, changed)
        self._agreed(fd, changed != reply)


def shake_hands(gate: Gate, agreed: Callable[[int, bool], None]) -> None:
    """After `install(gate)`: the exchange is the first that goes through its `wait_readable`, then the way is free."""
    lowlevel = pyfuse3.__dict__["trio"].lowlevel

    async def then(fd: int) -> None:
        lowlevel.wait_readable = gate.wait_readable
        await gate.wait_readable(fd)

    lowlevel.wait_readable = Handshake(then, agreed).wait_readable
