"""What may stand in datagrams that were decrypted and whose hash is right: for the lane, its twin, and all above."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from tests.fakes.simnet import SimNet
from tonfs.network import adnl_packet as wire
from tonfs.network import rldp2, tl
from tonfs.network.lane import Kind, Lane, Opened, Sink
from tonfs.network.lane_python import PythonLane, PythonSink

from .daemons import cut, joined

try:
    from tonfs.network.lane_native import NativeLane, NativeSink
except ImportError:
    LANES: list[Any] = [(PythonLane, PythonSink)]
else:
    LANES = [(PythonLane, PythonSink), (NativeLane, NativeSink)]

ID, KEY = b"\1" * 32, b"\2" * 32
PART = bytes(range(256)) * 9
"""Three symbols."""
OTHER = b"z" * 40_000
ANSWER_ID, QUERY_ID = b"\xaa" * 32, b"\xbb" * 32
"""Stand in the input for the ids that the victim's own question has."""


def symbols(data: bytes, transfer: bytes, *numbers: int) -> list[bytes]:
    sender = rldp2.PartSender(transfer, 0, len(data), data)
    return [next(sender.repeat(number).messages()) for number in numbers]


def packets(*customs: bytes, first: int = 1) -> list[bytes]:
    """The plain bytes of a packet for each custom message."""
    return [_packet(first + n, wire.Custom(custom)) for n, custom in enumerate(customs)]


def _packet(seqno: int, *messages: wire.Message) -> bytes:
    boxed = [wire.pack_message(message) for message in messages]
    return wire.build_contents(boxed, seqno=seqno, confirm_seqno=0, rand1=b"1234567", rand2=b"7654321")


def _state(opened: Opened) -> tuple[Any, ...]:
    done = None if opened.done is None else opened.done.key
    return (*opened[:6], done, [sink.key for sink in opened.touched], opened.sealed, opened.acks)


def _open(lane: Lane, sinks: list[Sink], stream: list[bytes]) -> list[Any]:
    """All that a lane does with a stream, datagrams of one size in a row as a train."""
    found: list[Any] = []
    for sink in sinks:
        lane.watch(sink)
    starts = [n for n in range(len(stream)) if n == 0 or len(stream[n]) != len(stream[n - 1])]
    for first, end in pairwise([*starts, len(stream)]):
        buffer, step, at = bytearray(b"".join(stream[first:end])), len(stream[first]), 0
        while at < len(buffer):
            opened = lane.open(buffer, at, len(buffer), step, bytes(28))
            found.append(_state(opened))
            if opened.kind is Kind.DONE and opened.done is not None:
                lane.unwatch(opened.done)
            at = opened.next + (step if opened.kind is Kind.STRAY else 0)
    found.append([(sink.symbols(), sink.confirm(), sink.received, sink.sources) for sink in sinks])
    return [*found, lane.in_seqno, lane.out_seqno, lane.confirmed]


def lanes(data: bytes) -> None:
    """The input holds the plain bytes of datagrams. Both implementations must do the same."""
    stream = [ID + wire.seal(KEY, plain) for plain in cut(data)]
    results = []
    for make_lane, make_sink in LANES:
        lane: Lane = make_lane()
        lane.set_channel(ID, KEY, ID, KEY)
        sinks = []
        for size, blob in ((3, PART), (53, OTHER)):
            head = rldp2.PartSender(bytes(32), 0, len(blob), blob).head
            sinks.append(make_sink(rldp2.part_key(head), size))
        results.append(_open(lane, sinks, stream))
    assert all(result == results[0] for result in results)


def peer(data: bytes) -> None:
    """A peer with a channel sends these plain bytes to one that waits for its answer; then some seconds pass."""
    net = SimNet()
    liar, victim = net.node(1), net.node(2)
    victim.handler = lambda query: query * 3
    assert net.ask(liar, victim, b"hello")
    net.run(0.1)
    pair, channel = victim.pair(liar), liar.pair(victim).peer.channel
    assert channel is not None
    assert pair.peer.ready
    victim.hub._report = _broken  # type: ignore[method-assign]
    pair.rldp.query(b"question", 5000, 3.0, lambda answer: None, net.time)
    ((answer, waiting),) = pair.rldp._waiting.items()
    for plain in cut(data.replace(ANSWER_ID, answer).replace(QUERY_ID, waiting.query_id)):
        victim.hub.receive(channel.seal(plain), liar.address, net.time)
        victim.flush()
    net.run(4)
    hub = victim.hub
    assert 0 <= hub.held.used < 1 << 20
    pair.close()
    assert hub.held.used == hub.query_budget.used == hub.answer_budget.used == 0


def _broken(event: str, exc: Exception) -> None:
    raise exc


_CHANNEL = wire.CreateChannel(b"\x21" + bytes(31), 1_800_000_000)
_ANSWER = tl.Writer(tl.RLDP_ANSWER).int256(QUERY_ID).bytes_(bytes(2000)).done()
_QUERY = tl.Writer(tl.RLDP_QUERY).int256(bytes(32)).i64(1 << 20).i32(2_000_000_000).bytes_(b"q" * 900).done()
_CONFIRMS = (rldp2.pack_confirm(ANSWER_ID, 0, 3, 7, 3), rldp2.pack_complete(ANSWER_ID, 0))

LANE_SEEDS = (
    joined(*packets(*symbols(PART, bytes(32), 0, 1, 2))),
    joined(*packets(*symbols(OTHER, bytes(32), 0, 1, 60), *_CONFIRMS)),
    joined(*packets(*symbols(OTHER, bytes(32), 2, 3), b"short"), _packet(9, wire.Nop(), wire.Nop())),
)
PEER_SEEDS = (
    joined(*packets(*symbols(_ANSWER, ANSWER_ID, 0, 1, 2), first=300)),
    joined(*packets(*symbols(_ANSWER, ANSWER_ID, 0, 2, 3), *_CONFIRMS, first=300)),
    joined(*packets(*symbols(_QUERY, b"\5" * 32, 0, 1), first=300)),
    joined(
        _packet(300, wire.Query(b"\6" * 32, b"ask"), _CHANNEL),
        _packet(301, wire.Part(b"\4" * 32, 2000, 0, b"p" * 76), wire.Reinit(1_700_000_900)),
        _packet(302, wire.Answer(bytes(32), b"unasked"), wire.Ping(5)),
    ),
)
