"""The kernel's first request goes through libfuse, and the answer gets one more flag on its way back."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from tonfs.fuse import handshake as handshake_module
from tonfs.fuse.handshake import KILLPRIV, KILLPRIV_V2, Handshake, with_flag


def request(flags: int = KILLPRIV_V2 | 1, opcode: int = 26, major: int = 7) -> bytes:
    head = struct.pack("<IIQQIIIHH", 104, opcode, 2, 0, 0, 0, 0, 0, 0)
    return head + struct.pack("<IIII", major, 39, 131072, flags) + bytes(48)


def reply(flags: int = 1, error: int = 0, major: int = 7) -> bytes:
    return struct.pack("<IiQ", 80, error, 2) + struct.pack("<IIII", major, 39, 131072, flags) + bytes(48)


def test_the_flag_is_added_when_the_kernel_offers_it() -> None:
    assert with_flag(request(), reply()) == reply(KILLPRIV_V2 | 1)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (request(flags=1), reply()),
        (request(opcode=1), reply()),
        (request(major=8), reply(major=7)),
        (request(), reply(error=-71)),
        (request(), reply(major=8)),
        (request(), reply(KILLPRIV | 1)),
        (request(), reply()[:24]),
        (request(), reply() + b"more"),
        (request()[:48], reply()),
    ],
)
def test_anything_unexpected_goes_on_as_it_is(asked: bytes, answered: bytes) -> None:
    assert with_flag(asked, answered) == answered


@pytest.fixture
def kernel() -> Iterator[tuple[socket.socket, int]]:
    """(the kernel's end, the descriptor that libfuse uses)."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fd = os.dup(ours.fileno())
    ours.close()
    with theirs:
        yield theirs, fd
    os.close(fd)


async def test_after_one_exchange_the_descriptor_is_the_kernels_again(kernel: tuple[socket.socket, int]) -> None:
    theirs, fd = kernel
    waited: list[int] = []
    told: list[tuple[int, bool]] = []

    async def then(descriptor: int) -> None:
        waited.append(descriptor)

    shake = Handshake(then, lambda *what: told.append(what))
    theirs.send(request())
    await shake.wait_readable(fd)
    assert os.read(fd, 1 << 20) == request(), "libfuse reads it as the kernel sent it"
    os.write(fd, reply())
    assert waited == []
    await shake.wait_readable(fd)
    assert theirs.recv(1000) == reply(KILLPRIV_V2 | 1)
    assert (waited, told) == ([fd], [(fd, True)])
    theirs.send(b"the next request")
    await shake.wait_readable(fd)
    assert os.read(fd, 100) == b"the next request"
    assert waited == [fd, fd]
    assert not os.get_inheritable(fd)


async def test_an_old_kernel_gets_what_libfuse_said(kernel: tuple[socket.socket, int]) -> None:
    theirs, fd = kernel
    told: list[tuple[int, bool]] = []

    async def then(_: int) -> None:
        pass

    shake = Handshake(then, lambda *what: told.append(what))
    theirs.send(request(flags=1))
    await shake.wait_readable(fd)
    os.read(fd, 1 << 20)
    os.write(fd, reply())
    await shake.wait_readable(fd)
    assert theirs.recv(1000) == reply()
    assert told == [(fd, False)]


async def test_a_silent_kernel_is_left_to_libfuse(
    kernel: tuple[socket.socket, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, fd = kernel
    monkeypatch.setattr(handshake_module, "_PATIENCE_MS", 0)
    waited: list[int] = []

    async def then(descriptor: int) -> None:
        waited.append(descriptor)

    shake = Handshake(then, lambda *_: pytest.fail("nothing was agreed"))
    await shake.wait_readable(fd)
    theirs.send(request())
    assert os.read(fd, 1 << 20) == request()
    os.write(fd, reply())
    await shake.wait_readable(fd)
    assert theirs.recv(1000) == reply()
    assert waited == [fd, fd]
