"""Whom a peer process knew outlives it: its port, its peers, and a hello that makes them begin anew."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import trio

from tonfs.clock import SystemClock
from tonfs.errors import PeerTimeout
from tonfs.network import acquaintances
from tonfs.network.acquaintances import MOST, Acquaintances, stay_in_touch
from tonfs.network.keys import KeyPair
from tonfs.network.node import AdnlNode, NodeEndpoint

KEY = KeyPair.generate().public_key


def test_port_and_peers_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "known"
    Acquaintances(path).keep(4000, [(KEY, ("127.0.0.1", 5000))])
    known = Acquaintances(path)
    assert (known.port, known.peers) == (4000, [(KEY, ("127.0.0.1", 5000))])
    Acquaintances(path).keep(4000, [(bytes([n]) * 32, ("127.0.0.1", 5000)) for n in range(100)])
    assert len(Acquaintances(path).peers) == MOST


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 2, "port": 1, "peers": []}',
        b'{"version": 1}',
        b'{"version": 1, "port": 4, "peers": [["zz", "127.0.0.1", 5]]}',
        b'{"version": 1, "port": 4, "peers": [["' + b"ab" * 32 + b'", "localhost", 5]]}',
        b'{"version": 1, "port": 4, "peers": [7]}',
    ],
)
def test_a_damaged_file_counts_as_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "known"
    path.write_bytes(content)
    assert Acquaintances(path).peers == []


def test_the_old_port_is_taken_when_it_is_free_and_no_port_was_asked_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        path = tmp_path / "known"
        path.write_text(json.dumps({"version": 1, "port": port, "peers": []}), encoding="ascii")
        known = Acquaintances(path)
        assert known.listen(("127.0.0.1", 0)) == ("127.0.0.1", 0)
    assert known.listen(("127.0.0.1", 0)) == ("127.0.0.1", port)
    assert known.listen(("127.0.0.1", 99)) == ("127.0.0.1", 99)


async def _node(nursery: trio.Nursery, key: KeyPair, port: int = 0) -> tuple[AdnlNode, NodeEndpoint]:
    node = AdnlNode(("127.0.0.1", port), clock=SystemClock())
    endpoint = node.add_identity(key)
    await nursery.start(node.run)
    return node, endpoint


async def test_after_a_restart_an_old_peer_reaches_us_at_once(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the hello it would go on through the lost channel (its own knock comes after 5 s of silence)."""
    path = tmp_path / "known"
    key = KeyPair.generate()

    async def echo(peer: object, data: bytes, by_rldp: bool) -> bytes | None:
        return data

    _, friend = await _node(nursery, KeyPair.generate())
    friend.set_handler(echo)
    async with trio.open_nursery() as life:
        _, endpoint = await _node(life, key)
        endpoint.set_handler(echo)
        port = endpoint.address[1]
        us = friend.peer(key.public_key, endpoint.address)
        assert await us.query(b"one", timeout=5) == b"one"
        life.start_soon(stay_in_touch, Acquaintances(path), endpoint, port)
        await trio.sleep(0.1)
        life.cancel_scope.cancel()
    known = Acquaintances(path)
    assert known.peers == [(friend.public_key, friend.address)]
    await trio.sleep(1.1)  # a new life has a later date
    _, endpoint = await _node(nursery, key, known.listen(("127.0.0.1", 0))[1])
    endpoint.set_handler(echo)
    monkeypatch.setattr(acquaintances, "HELLO_FOR", 0.3)
    nursery.start_soon(stay_in_touch, known, endpoint, port)
    await trio.sleep(0.4)
    assert await us.query(b"two", timeout=2) == b"two"


async def test_nobody_at_home_is_no_error(nursery: trio.Nursery, tmp_path: Path) -> None:
    path = tmp_path / "known"
    Acquaintances(path).keep(4000, [(KEY, ("127.0.0.1", 9))])
    _, endpoint = await _node(nursery, KeyPair.generate())
    with trio.move_on_after(1.2):
        await stay_in_touch(Acquaintances(path), endpoint, 4000)
    assert Acquaintances(path).peers == [(KEY, ("127.0.0.1", 9))]
    with pytest.raises(PeerTimeout):
        await endpoint.peer(KEY, ("127.0.0.1", 9)).query(b"x", timeout=0.1)
