"""The trio driver over real UDP on loopback."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tonfs.clock import SystemClock
from tonfs.errors import BadPacket, NotRunning, PeerTimeout, PeerUnreachable, UsageError
from tonfs.network import node as driver
from tonfs.network.api import AdnlEndpoint, Peer, UdpAddress
from tonfs.network.keys import KeyPair
from tonfs.network.node import AdnlNode


async def echo(peer: Peer, data: bytes, by_rldp: bool) -> bytes | None:
    return (b"R" if by_rldp else b"A") + data


@asynccontextmanager
async def two_nodes(
    loss: float = 0.0,
) -> AsyncIterator[tuple[AdnlNode, AdnlEndpoint, AdnlNode, AdnlEndpoint, UdpAddress]]:
    async with trio.open_nursery() as nursery:
        a = AdnlNode(("127.0.0.1", 0), clock=SystemClock(), loss=loss, loss_seed=1)
        b = AdnlNode(("127.0.0.1", 0), clock=SystemClock(), loss=loss, loss_seed=2)
        await nursery.start(a.run)
        address = await nursery.start(b.run)
        yield a, a.add_identity(KeyPair.generate()), b, b.add_identity(KeyPair.generate()), address
        nursery.cancel_scope.cancel()


async def test_queries_of_both_kinds_are_answered() -> None:
    async with two_nodes() as (_, client, node, server, address):
        server.set_handler(echo)
        assert server.address == address
        peer = client.peer(server.public_key, address)
        assert (peer.id, peer.address) == (server.id, address)
        assert await peer.query(b"one", timeout=10) == b"Aone"
        assert await peer.rldp_query(b"two", max_answer=100, timeout=10) == b"Rtwo"
        assert await peer.query(bytes(8000), timeout=10) == b"A" + bytes(8000)
        assert node.stats.queries_in == 3
        assert node.stats.errors == node.stats.bad == 0


async def test_a_peer_that_contacted_us_can_be_asked_back() -> None:
    async with two_nodes() as (_, client, _, server, address):
        back: list[bytes] = []

        async def ask_back(peer: Peer, data: bytes, by_rldp: bool) -> bytes | None:
            known = server.known_peer(peer.id)
            assert known is not None
            back.append(await known.query(b"back", timeout=10))
            return b"done"

        server.set_handler(ask_back)
        client.set_handler(echo)
        assert client.known_peer(server.id) is None
        assert await client.peer(server.public_key, address).query(b"x", timeout=10) == b"done"
        assert back == [b"Aback"]
        assert client.known_peer(server.id) is not None


async def test_large_answers_come_through_loss() -> None:
    async with two_nodes(loss=0.05) as (_, client, _, server, address):
        blob = bytes(range(256)) * 4000

        async def serve(peer: Peer, data: bytes, by_rldp: bool) -> bytes | None:
            return blob

        server.set_handler(serve)
        peer = client.peer(server.public_key, address)
        assert await peer.rldp_query(b"get", max_answer=len(blob), timeout=60) == blob


async def test_one_node_may_have_several_identities_even_talking_to_each_other() -> None:
    async with two_nodes() as (node, first, _, other, address):
        second = node.add_identity(KeyPair.generate())
        assert node.add_identity(KeyPair.generate()) is not second
        second.set_handler(echo)
        other.set_handler(echo)
        assert await first.peer(second.public_key, first.address).query(b"1", timeout=10) == b"A1"
        assert await second.peer(other.public_key, address).query(b"2", timeout=10) == b"A2"
        assert await first.peer(other.public_key, address).rldp_query(b"3", max_answer=9, timeout=10) == b"R3"


async def test_silence_is_a_timeout_and_leaves_nothing() -> None:
    async with two_nodes() as (node, client, _, server, address):
        peer = client.peer(server.public_key, address)
        with pytest.raises(PeerTimeout):
            await peer.query(b"x", timeout=0.05)
        with pytest.raises(PeerTimeout):
            await peer.rldp_query(b"x", max_answer=1, timeout=0.05)
        pairs = [r.pair for local in node.hub._locals.values() for r in local.remotes.values()]
        assert [pair.busy for pair in pairs if pair is not None] == [False]


@pytest.mark.allow_logs
async def test_a_handler_that_fails_is_silence_and_not_the_end() -> None:
    async with two_nodes() as (_, client, node, server, address):

        async def broken(peer: Peer, data: bytes, by_rldp: bool) -> bytes | None:
            if data == b"bug":
                raise KeyError("bug")
            if data == b"bad":
                raise BadPacket("foreign bytes")
            return data

        server.set_handler(broken)
        peer = client.peer(server.public_key, address)
        for data in (b"bug", b"bad"):
            with pytest.raises(PeerTimeout):
                await peer.query(data, timeout=0.1)
        assert await peer.query(b"fine", timeout=10) == b"fine"
        assert node.stats.errors == 1


async def test_no_datagram_stops_the_loop() -> None:
    async with two_nodes() as (_, client, node, server, address):
        server.set_handler(echo)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for size in (0, 1, 31, 32, 100, 2000, 9000):
                sock.sendto(bytes(size), address)
                sock.sendto(server.id + bytes(size), address)
        assert await client.peer(server.public_key, address).query(b"x", timeout=10) == b"Ax"
        assert node.stats.errors == 0
        assert node.stats.stray + node.stats.bad >= 10


async def test_what_cannot_be_reached_is_said_at_once() -> None:
    node = AdnlNode(("127.0.0.1", 0), clock=SystemClock(), announce_ip="1.2.3.4")
    endpoint = node.add_identity(KeyPair.generate())
    other = KeyPair.generate()
    with pytest.raises(NotRunning):
        await endpoint.peer(other.public_key, ("127.0.0.1", 9)).query(b"x", timeout=1)
    for address in (("localhost", 9), ("127.0.0.1", 0), ("0.0.0.0", 9), ("::1", 9), ("", 9)):
        with pytest.raises(UsageError):
            endpoint.peer(other.public_key, address)
    with pytest.raises(BadPacket):
        endpoint.peer(bytes(32), ("127.0.0.1", 9))
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(node.run)
        assert endpoint.address == ("1.2.3.4", bound[1])
        peer = endpoint.known_peer(other.short_id)
        assert peer is not None
        node.hub.remote(node.hub.add_identity(other), other.public_key, ("127.0.0.1", 9), 0.0).hint = None
        endpoint.local.remotes[other.short_id].hint = None  # type: ignore[attr-defined]
        with pytest.raises(PeerUnreachable):
            await peer.query(b"x", timeout=1)
        nursery.cancel_scope.cancel()


async def test_a_muted_node_neither_hears_nor_speaks() -> None:
    async with two_nodes() as (_, client, node, server, address):
        server.set_handler(echo)
        peer = client.peer(server.public_key, address)
        node.muted = True
        with pytest.raises(PeerTimeout):
            await peer.query(b"x", timeout=0.1)
        assert node.stats.datagrams_in == node.stats.datagrams_out == 0
        node.muted = False
        assert await peer.query(b"x", timeout=10) == b"Ax"


async def test_more_queries_than_handlers_are_answered_when_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MAX_HANDLERS", 2)
    async with two_nodes() as (_, client, node, server, address):
        running: list[int] = []

        async def slow(peer: Peer, data: bytes, by_rldp: bool) -> bytes | None:
            running.append(1)
            assert len(running) <= 2
            await trio.sleep(0.02)
            running.pop()
            return data

        server.set_handler(slow)
        peer = client.peer(server.public_key, address)
        answers: list[bytes] = []

        async def ask(number: int) -> None:
            answers.append(await peer.query(b"%d" % number, timeout=10))

        async with trio.open_nursery() as group:
            for number in range(5):
                group.start_soon(ask, number)
        assert sorted(answers) == [b"0", b"1", b"2", b"3", b"4"]
        assert node.stats.queries_refused > 0
