"""The in-memory network keeps the promises of `tonfs.network.api`, so tests on it mean something."""

from __future__ import annotations

import pytest
import trio

from tests.fakes.adnl import FakeNet
from tonfs.errors import PeerTimeout
from tonfs.network.api import AdnlEndpoint, Peer


async def echo(peer: Peer, data: bytes, rldp: bool) -> bytes | None:
    return None if data.startswith(b"mute") else data[::-1]


async def test_a_query_reaches_the_other_endpoints_handler(autojump_clock, nursery):
    net = FakeNet(nursery)
    a: AdnlEndpoint = net.endpoint("a")
    b: AdnlEndpoint = net.endpoint("b")
    b.set_handler(echo)
    peer = a.peer(b.public_key, b.address)
    assert await peer.query(b"abcd", timeout=1) == b"dcba"
    assert await peer.rldp_query(b"x" * 100_000, max_answer=100_000, timeout=1) == b"x" * 100_000
    known = b.known_peer(a.id)
    assert known is not None
    assert known.address == a.address


async def test_silence_loss_and_death_end_in_a_timeout(autojump_clock, nursery):
    net = FakeNet(nursery)
    a, b = net.endpoint("a"), net.endpoint("b")
    b.set_handler(echo)
    peer = a.peer(b.public_key, b.address)
    with pytest.raises(PeerTimeout):
        await peer.query(b"mute", timeout=2)
    net.partition([a], [b])
    with pytest.raises(PeerTimeout):
        await peer.query(b"abcd", timeout=2)
    net.heal()
    b.kill()
    with pytest.raises(PeerTimeout):
        await peer.query(b"abcd", timeout=2)
    b.revive()
    assert await peer.query(b"abcd", timeout=2) == b"dcba"


async def test_a_lossy_net_answers_after_resending_and_runs_the_handler_once(autojump_clock, nursery):
    net = FakeNet(nursery, loss=0.6, seed=3)
    a, b = net.endpoint("a"), net.endpoint("b")
    b.set_handler(echo)
    for _ in range(20):
        assert await a.peer(b.public_key, b.address).query(b"abcd", timeout=60) == b"dcba"
    assert net.executed.total() == 20


async def test_an_oversized_rldp_answer_never_arrives(autojump_clock, nursery):
    net = FakeNet(nursery)
    a, b = net.endpoint("a"), net.endpoint("b")
    b.set_handler(echo)
    start = trio.current_time()
    with pytest.raises(PeerTimeout):
        await a.peer(b.public_key, b.address).rldp_query(b"x" * 100, max_answer=99, timeout=3)
    assert trio.current_time() - start == pytest.approx(3)


async def test_the_net_learns_an_endpoints_new_address_from_what_it_sends(autojump_clock, nursery):
    net = FakeNet(nursery)
    a, b = net.endpoint("a"), net.endpoint("b")
    b.set_handler(echo)
    a.set_handler(echo)
    peer = a.peer(b.public_key, b.address)
    b.move(("127.0.0.1", 9))
    with pytest.raises(PeerTimeout):
        await peer.query(b"abcd", timeout=1)
    assert await b.peer(a.public_key, a.address).query(b"abcd", timeout=1) == b"dcba"
    assert await peer.query(b"abcd", timeout=1) == b"dcba"
