"""Pairs of nodes on a simulated network: whatever the network does, queries get through, once."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.simnet import SimNet, SimNode
from tonfs.errors import UsageError
from tonfs.network import adnl_hub, adnl_memory, adnl_peer
from tonfs.network import adnl_packet as wire
from tonfs.network.api import UdpAddress

BAD_NETWORKS = [
    {},
    {"loss": 0.1},
    {"loss": 0.3, "delay": 0.05},
    {"duplicate": 0.5},
    {"jitter": 0.05},
    {"loss": 0.1, "duplicate": 0.2, "jitter": 0.1},
]


def echo(net: SimNet) -> tuple[SimNode, SimNode]:
    a, b = net.node(1), net.node(2)
    b.handler = lambda data: b"re:" + data
    return a, b


@pytest.mark.parametrize("network", BAD_NETWORKS, ids=str)
@pytest.mark.parametrize("size", [0, 1000, 1100, 8000])
def test_a_query_is_answered_and_executed_once(network: dict[str, float], size: int) -> None:
    net = SimNet(seed=size + 1, **network)  # type: ignore[arg-type]
    a, b = echo(net)
    for number in range(5):
        data = b"%d" % number + bytes(size)
        assert net.ask(a, b, data, timeout=30) == b"re:" + data
    assert len(b.asked) == 5


def test_after_the_first_exchange_everything_goes_through_the_channel() -> None:
    net = SimNet()
    a, b = echo(net)
    net.ask(a, b, b"first")
    net.run(0.1)
    assert a.pair(b).peer.ready
    assert b.pair(a).peer.ready
    heads: list[bytes] = []
    net.on_wire = lambda datagram, source, target: heads.append(datagram[:32])
    for number in range(20):
        assert net.ask(a, b, b"%d" % number) is not None
    assert not {a.key.short_id, b.key.short_id} & set(heads)
    assert max(map(len, heads)) <= wire.MAX_DATAGRAM


def test_a_timer_that_was_put_off_wakes_nobody() -> None:
    net = SimNet()
    a, b = echo(net)
    net.ask(a, b, b"first")
    net.run(0.5)
    before = a.hub.next_deadline()
    a.pair(b).peer.query(bytes(32), b"x", lambda answer: None, net.time)
    a.hub.touch(a.pair(b))
    a.flush()
    assert a.hub.next_deadline() < before
    a.pair(b).peer.cancel(bytes(32))
    a.hub.touch(a.pair(b))
    a.flush()
    assert a.hub.next_deadline() == before


def test_both_sides_may_begin_at_once() -> None:
    net = SimNet(delay=0.02)
    a, b = echo(net)
    a.handler = b.handler
    answers: list[bytes] = []
    for source, target in ((a, b), (b, a)):
        source.pair(target).peer.query(source.key.short_id, b"x", answers.append, net.time)
        source.hub.touch(source.pair(target))
    assert net.run(2, lambda: len(answers) == 2)
    net.run(0.2)
    assert a.pair(b).peer.ready
    assert b.pair(a).peer.ready


def test_a_server_that_restarted_is_reached_again() -> None:
    net = SimNet()
    a, b = echo(net)
    assert net.ask(a, b, b"1") is not None
    net.run(30)
    again = net.node(2)
    again.handler = b.handler
    start = net.time
    assert net.ask(a, again, b"2") == b"re:2"
    assert net.time - start < adnl_peer.REINIT_AFTER + 1
    assert net.ask(a, again, b"3") == b"re:3"
    assert a.pair(again).peer.ready


def test_a_client_that_restarted_is_served_at_once() -> None:
    net = SimNet()
    a, b = echo(net)
    assert net.ask(a, b, b"1") is not None
    net.run(2)
    again = net.node(1)
    start = net.time
    assert net.ask(again, b, b"2") == b"re:2"
    assert net.time - start < 0.1


def test_a_client_that_restarted_within_the_same_second_is_served_in_the_end() -> None:
    net = SimNet()
    a, b = echo(net)
    for number in range(4):
        assert net.ask(a, b, b"%d" % number) is not None
    again = net.node(1)
    assert net.ask(again, b, b"again", timeout=10) == b"re:again"


def test_a_question_that_was_under_way_during_a_restart_is_answered() -> None:
    net = SimNet()
    a, b = echo(net)
    assert net.ask(a, b, b"1") is not None
    b.handler = lambda data: None
    answers: list[bytes] = []
    a.pair(b).peer.query(bytes(32), b"late", answers.append, net.time)
    a.hub.touch(a.pair(b))
    net.run(1)
    again = net.node(2)
    again.handler = lambda data: b"re:" + data
    assert net.run(5, lambda: bool(answers))
    assert answers == [b"re:late"]


def test_answers_go_to_where_the_peer_was_last_heard() -> None:
    net = SimNet()
    a, b = echo(net)
    assert net.ask(a, b, b"1") is not None
    del net.nodes[a.address]
    a.address = ("10.0.0.1", 9999)
    net.nodes[a.address] = a
    assert net.ask(a, b, b"2") == b"re:2"
    assert b.pair(a).peer.path.address == a.address


def test_a_given_address_counts_when_the_peer_was_silent() -> None:
    net = SimNet()
    a, b = echo(net)
    assert net.ask(a, b, b"1") is not None
    del net.nodes[b.address]
    moved = net.node(2, port=7777)
    moved.handler = b.handler
    assert net.ask(a, moved, b"2", timeout=1) is None
    net.run(adnl_hub.TRUST_LEARNED)
    assert net.ask(a, moved, b"3") == b"re:3"


def test_recorded_datagrams_mean_nothing_a_second_time() -> None:
    net = SimNet()
    a, b = echo(net)
    recorded: list[tuple[bytes, UdpAddress]] = []
    net.on_wire = lambda datagram, source, target: recorded.append((datagram, target))
    for number in range(10):
        assert net.ask(a, b, b"%d" % number) is not None
    executed = len(b.asked)
    address = b.pair(a).peer.path.address
    liar = ("10.6.6.6", 666)
    for _ in range(3):
        for datagram, target in list(recorded):
            net.nodes[target].hub.receive(datagram, liar, net.time)
        net.run(20)
    assert len(b.asked) == executed
    assert b.pair(a).peer.path.address == address
    assert net.ask(a, b, b"still") == b"re:still"


def forged(net: SimNet, sender: SimNode, target: SimNode, claimed: SimNode) -> bytes:
    """A root datagram by `sender` that claims to come from `claimed`."""
    plain = wire.build_contents(
        [wire.pack_message(wire.Query(bytes(32), b"evil"))],
        seqno=1000,
        confirm_seqno=0,
        from_key=claimed.key.public_key,
        dates=(int(net.now()) + 30, 0),
        sign=sender.key,
    )
    return wire.seal_root(target.key.public_key, target.key.short_id, plain)


def test_a_forged_sender_changes_nothing() -> None:
    net = SimNet()
    a, b = echo(net)
    liar = net.node(3)
    b.hub.receive(forged(net, liar, b, a), liar.address, net.time)
    assert not b.local.remotes
    assert net.ask(a, b, b"1") is not None
    b.hub.receive(forged(net, liar, b, a), liar.address, net.time)
    net.run(1)
    assert b.hub.stats.bad == 2
    assert b.asked == [b"1"]
    assert b.pair(a).peer.path.address == a.address


def test_message_parts_that_do_not_match_their_hash_are_dropped() -> None:
    net = SimNet()
    a, b = echo(net)
    assert net.ask(a, b, b"1") is not None
    net.run(0.1)
    peer = a.pair(b).peer
    whole = wire.pack_message(wire.Query(bytes(32), bytes(1500)))
    for digest in (bytes(32), b"\1" * 32):
        for offset in (0, 1024):
            peer.send(wire.pack_message(wire.Part(digest, len(whole), offset, whole[offset : offset + 1024])), net.time)
    for total, offset, data in ((9000, 0, b"x"), (100, 99, b"xx"), (-1, 0, b""), (100, -1, b"x"), (5, 0, b"")):
        peer.send(wire.pack_message(wire.Part(bytes(32), total, offset, data)), net.time)
    a.hub.touch(a.pair(b))
    net.run(1)
    assert b.asked == [b"1"]
    assert b.hub.stats.bad == 7
    assert net.ask(a, b, b"2") == b"re:2"


def test_the_cache_of_answers_and_halves_stays_small() -> None:
    net = SimNet()
    a, b = net.node(1), net.node(2)
    b.handler = lambda data: bytes(8000)
    for number in range(60):
        assert net.ask(a, b, b"%d" % number) is not None
    peer = a.pair(b).peer
    for number in range(50):
        peer.send(wire.pack_message(wire.Part(number.to_bytes(32, "big"), 8000, 0, bytes(1024))), net.time)
    a.hub.touch(a.pair(b))
    net.run(1)
    server = b.pair(a).peer
    assert server.answers.bytes <= adnl_memory.CACHE_BYTES
    assert len(server.partial) <= adnl_memory.MAX_PARTIAL
    assert server.answers.pending == 0
    net.run(60)
    assert net.ask(a, b, b"x") is not None
    assert len(server.answers) <= 2


def test_a_silent_handler_leaves_nothing_pending() -> None:
    net = SimNet()
    a, b = net.node(1), net.node(2)
    for number in range(100):
        assert net.ask(a, b, b"%d" % number, timeout=0.5) is None
    assert len(b.asked) == 100
    assert b.pair(a).peer.answers.pending == 0


def test_few_root_packets_go_to_a_peer_that_never_answers() -> None:
    net = SimNet()
    a, b = net.node(1), net.node(2)
    del net.nodes[b.address]
    for number in range(30):
        assert net.ask(a, b, b"%d" % number, timeout=2) is None
    assert net.sent <= adnl_peer.ROOT_BURST + adnl_peer.ROOT_RATE * 61


def test_a_query_too_long_for_adnl_is_refused_before_sending() -> None:
    net = SimNet()
    a, b = echo(net)
    with pytest.raises(UsageError):
        net.ask(a, b, bytes(8400))


def test_ten_thousand_strays_leave_no_trace() -> None:
    net = SimNet()
    a, b = echo(net)
    assert net.ask(a, b, b"1") is not None
    rng = random.Random(7)
    channel = b.pair(a).peer.channel
    assert channel is not None
    for number in range(10_000):
        head = (b"", b.key.short_id, channel.in_id)[number % 3]
        b.hub.receive(head + rng.randbytes(rng.randrange(1400)), (f"10.9.{number % 256}.1", 1), net.time)
    assert len(b.local.remotes) == 1
    assert b.hub.stats.errors == 0
    assert net.ask(a, b, b"2") == b"re:2"


def test_root_packets_of_one_source_are_limited() -> None:
    net = SimNet()
    _, b = echo(net)
    for _ in range(2000):
        b.hub.receive(b.key.short_id + bytes(200), ("10.7.7.7", 1), net.time)
    assert b.hub.stats.limited == 2000 - adnl_hub.ROOT_BURST


def test_idle_pairs_are_forgotten_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adnl_hub, "MAX_PAIRS", 8)
    net = SimNet()
    server = net.node(1)
    server.handler = lambda data: data
    clients = [net.node(10 + n) for n in range(30)]
    for client in clients:
        assert net.ask(client, server, b"x") == b"x"
    assert server.hub._pairs <= 8
    assert len(server.hub._channels) <= 8
    for client in clients:
        assert net.ask(client, server, b"y") == b"y"
    net.run(2 * adnl_hub.PAIR_IDLE)
    assert server.hub._pairs == 0
    assert not server.hub._channels
    assert server.local.remotes[clients[0].key.short_id].address == clients[0].address
    assert net.ask(clients[0], server, b"z") == b"z"


def test_a_packet_from_far_in_the_future_is_dropped() -> None:
    net = SimNet()
    a, b = echo(net)
    plain = wire.build_contents(
        [wire.pack_message(wire.Query(bytes(32), b"q"))], seqno=1, confirm_seqno=0,
        from_key=a.key.public_key, dates=(int(net.now()) + 100, 0), sign=a.key,
    )  # fmt: skip
    b.hub.receive(wire.seal_root(b.key.public_key, b.key.short_id, plain), a.address, net.time)
    net.run(1)
    assert b.asked == []


def test_a_confirmation_of_what_was_never_sent_is_dropped() -> None:
    net = SimNet()
    a, b = echo(net)
    plain = wire.build_contents(
        [wire.pack_message(wire.Query(bytes(32), b"q"))], seqno=1, confirm_seqno=1,
        from_key=a.key.public_key, dates=(int(net.now()), 0), sign=a.key,
    )  # fmt: skip
    b.hub.receive(wire.seal_root(b.key.public_key, b.key.short_id, plain), a.address, net.time)
    net.run(1)
    assert b.asked == []


def test_a_peer_that_confirms_packets_of_our_earlier_life_is_told_our_date() -> None:
    """tonutils-storage learns our date only from a root packet that names its own; till then it means the old one."""
    net = SimNet()
    a, b = echo(net)
    told: list[tuple[int | None, int | None]] = []

    def look(datagram: bytes, source: UdpAddress, target: UdpAddress) -> None:
        if source == b.address:
            contents = wire.parse_contents(wire.open_root(a.key, datagram))
            told.append((contents.reinit_date, contents.dst_reinit_date))

    net.on_wire = look
    started = int(net.now())
    for seqno in (501, 502):
        plain = wire.build_contents(
            [wire.pack_message(wire.Query(bytes(32), b"q"))], seqno=seqno, confirm_seqno=300,
            from_key=a.key.public_key, dates=(started, 0), sign=a.key,
        )  # fmt: skip
        b.hub.receive(wire.seal_root(b.key.public_key, b.key.short_id, plain), a.address, net.time)
        b.flush()
    assert told == [(started, started)]  # once: no echo chamber
    assert b.asked == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=120)), max_size=12))
def test_no_authenticated_rubbish_breaks_a_peer(messages: list[tuple[int, bytes]]) -> None:
    net = SimNet()
    a, b = echo(net)
    assert net.ask(a, b, b"1") is not None
    net.run(0.1)
    pair = a.pair(b)
    for kind, data in messages:
        if kind == 0:
            pair.peer._send_packet(data, net.time)
        elif kind == 1:
            pair.peer.send_custom(data, net.time)
        else:
            pair.peer._send_packet(data[:4].ljust(4, b"\0") + data, net.time)
    a.hub.touch(pair)
    net.run(1)
    assert b.hub.stats.errors == 0
    assert net.ask(a, b, b"2") == b"re:2"


def test_reinit_dates_never_go_back_with_the_clock() -> None:
    net = SimNet()
    a, _ = echo(net)
    first = a.hub.next_date()
    net.time += 100
    assert a.hub.next_date() == first + 100
    net.time -= 50
    assert a.hub.next_date() == first + 100


def test_an_identity_that_talks_to_itself_does_no_harm() -> None:
    net = SimNet()
    a, b = echo(net)
    net.ask(a, a, b"me", timeout=2)
    net.run(30)
    assert a.hub.stats.errors == 0
    assert net.sent < 200
    assert net.ask(a, b, b"x") == b"re:x"
