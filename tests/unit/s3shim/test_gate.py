"""Taking connections: handshakes have an end, and are not more than so many."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import uvloop

from scripts.interop.s3 import certificate
from tonfs.s3shim import gate
from tonfs.s3shim.gate import Gate, listen


class Greeter(asyncio.Protocol):
    """Says hello and hangs up."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.write(b"hello")
        transport.close()


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(the server's, the client's)"""
    public, private = certificate(tmp_path)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(public, private)
    return server, ssl.create_default_context(cafile=str(public))


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as running:
        yield running


async def heard(port: int, tls: ssl.SSLContext | None) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    try:
        return await reader.read()
    finally:
        writer.close()


def silent(port: int) -> socket.socket:
    """A client that connects and says nothing."""
    made = socket.create_connection(("127.0.0.1", port))
    made.setblocking(False)
    return made


async def closed(client: socket.socket) -> bool:
    """Waits for it."""
    try:
        return not await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1), 20)
    except ConnectionError:
        return True


@pytest.mark.parametrize("secure", [False, True])
def test_connections_come_in_until_the_gate_is_closed(
    runner: asyncio.Runner, contexts: tuple[ssl.SSLContext, ssl.SSLContext], secure: bool
) -> None:
    server, client = contexts if secure else (None, None)

    async def work() -> None:
        sockets = await listen("127.0.0.1", 0)
        port = sockets[0].getsockname()[1]
        door = Gate(sockets, Greeter, server)
        assert await heard(port, client) == b"hello"
        assert await heard(port, client) == b"hello"
        await door.close()
        with pytest.raises(ConnectionRefusedError):
            await heard(port, client)

    runner.run(asyncio.wait_for(work(), 60))


def test_a_handshake_that_does_not_end_is_cut(
    runner: asyncio.Runner, contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "HANDSHAKE", 0.2)

    async def work() -> None:
        sockets = await listen("127.0.0.1", 0)
        door = Gate(sockets, Greeter, contexts[0])
        with closing(silent(sockets[0].getsockname()[1])) as client:
            assert await closed(client)
        await door.close()

    runner.run(asyncio.wait_for(work(), 60))


def test_beyond_the_limit_the_oldest_handshake_goes(
    runner: asyncio.Runner, contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MAX_HANDSHAKES", 3)

    async def work() -> None:
        sockets = await listen("127.0.0.1", 0)
        port = sockets[0].getsockname()[1]
        door = Gate(sockets, Greeter, contexts[0])
        strangers = []
        for _ in range(5):
            strangers.append(silent(port))
            await asyncio.sleep(0.02)
        assert await heard(port, contexts[1]) == b"hello", "who knows TLS is let in"
        assert await closed(strangers[0])
        assert await closed(strangers[1])
        with pytest.raises(BlockingIOError):
            strangers[4].recv(1)
        await door.close()
        for stranger in strangers:
            stranger.close()

    runner.run(asyncio.wait_for(work(), 60))


def test_a_port_that_is_taken_leaves_nothing_open(runner: asyncio.Runner) -> None:
    async def work() -> None:
        (taken,) = await listen("127.0.0.1", 0)
        with closing(taken), pytest.raises(OSError, match="in use"):
            await listen("127.0.0.1", taken.getsockname()[1])

    runner.run(asyncio.wait_for(work(), 60))
