"""The packet helper in C and its twin in Python: one behaviour, byte for byte. Without the helper the twin alone."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonfs.network import adnl_packet as wire
from tonfs.network import lane as seam
from tonfs.network import lane_python, rldp2, tl
from tonfs.network.lane import Kind, Lane, Opened, Sink
from tonfs.network.lane_python import PythonLane, PythonSink

IMPLEMENTATIONS: list[Any] = [(PythonLane, PythonSink)]
MIXES: list[seam.Mix] = [lane_python.mix]
try:
    from tonfs.network import lane_native
    from tonfs.network.lane_native import NativeLane, NativeSink
except ImportError:
    BOTH = pytest.mark.skip("the C helper was not built: there is nothing to compare the Python twin with")
else:
    IMPLEMENTATIONS.append((NativeLane, NativeSink))
    MIXES.append(lane_native.mix)
    BOTH = pytest.mark.filterwarnings("error")

every = pytest.mark.parametrize(
    ("make_lane", "make_sink"), IMPLEMENTATIONS, ids=["python", "native"][: len(IMPLEMENTATIONS)]
)

ID_A, KEY_A, ID_B, KEY_B = (bytes((n,)) * 32 for n in (1, 2, 3, 4))
TRANSFER = b"\x07" * 32


def lanes(make_lane: Any) -> tuple[Lane, Lane]:
    """Two ends of a channel."""
    one, two = make_lane(), make_lane()
    one.set_channel(ID_A, KEY_A, ID_B, KEY_B)
    two.set_channel(ID_B, KEY_B, ID_A, KEY_A)
    return one, two


def head_of(data: bytes, transfer: bytes = TRANSFER, part: int = 0, total: int | None = None) -> bytes:
    return rldp2.PartSender(transfer, part, len(data) if total is None else total, data).head


def key_of(data: bytes, transfer: bytes = TRANSFER) -> bytes:
    return head_of(data, transfer)[4:]


def blob(symbols: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(768 * symbols - 5)


def open_all(lane: Lane, data: bytes, step: int) -> list[Opened]:
    buffer, at, found = bytearray(data), 0, []
    while at < len(buffer):
        opened = lane.open(buffer, at, len(buffer), step, bytes(56))
        found.append(opened)
        at = opened.next if opened.kind is not Kind.STRAY else opened.next + step
    return found


@every
def test_sealed_symbols_are_packets_as_the_reference_describes_them(make_lane: Any, make_sink: Any) -> None:
    one, _ = lanes(make_lane)
    data = blob(5)
    sealed = bytes(one.seal_parts(head_of(data), data, 3 * 768, 3, 2, bytes(range(28))))
    assert len(sealed) == 2 * seam.PART_DATAGRAM
    for number in range(2):
        datagram = sealed[952 * number : 952 * number + 952]
        assert datagram[:32] == ID_B
        contents = wire.parse_contents(wire.unseal(KEY_B, datagram, 32))
        assert (contents.seqno, contents.confirm_seqno) == (number + 1, 0)
        (message,) = contents.messages
        assert isinstance(message, wire.Custom)
        expected = data[768 * (3 + number) :][:768].ljust(768, b"\0")
        assert rldp2.parse(message.data) == rldp2.MessagePart(TRANSFER, len(data), 0, len(data), 3 + number, expected)
    assert one.out_seqno == 2


@every
@pytest.mark.parametrize("size", [0, 1, 52, 252, 253, 254, 255, 840, 1023, 1024])
def test_a_sealed_message_comes_out_whole(make_lane: Any, make_sink: Any, size: int) -> None:
    one, two = lanes(make_lane)
    message = random.Random(size).randbytes(size)
    sealed = one.seal_custom(message, bytes(14))
    assert wire.parse_contents(wire.unseal(KEY_B, sealed, 32)).messages == (wire.Custom(message),)
    opened = two.open(bytearray(sealed), 0, len(sealed), len(sealed), bytes(14))
    assert (opened.kind, opened.data, opened.accepted) == (Kind.CUSTOM, message, 1)


@every
def test_numbers_that_were_not_used_cannot_be_confirmed_and_a_promised_one_is_gone_on_behind(
    make_lane: Any, make_sink: Any
) -> None:
    lane = make_lane()
    lane.next_seqno()
    assert not lane.accept(1, 2)
    lane.promised = 1 << 40
    assert lane.accept(1, 1)
    assert (lane.confirmed, lane.out_seqno) == (1, 1)
    assert not lane.accept(2, (1 << 40) + 1)
    assert lane.accept(2, 1 << 40)
    assert not lane.accept(2, 1)
    assert (lane.confirmed, lane.next_seqno()) == (1 << 40, (1 << 40) + 1)
    lane.reset()
    assert (lane.confirmed, lane.promised, lane.out_seqno) == (0, 0, 0)


@every
def test_what_the_last_packet_of_a_train_confirms_is_known(make_lane: Any, make_sink: Any) -> None:
    one, two = lanes(make_lane)
    data = blob(8)
    sink: Sink = make_sink(key_of(data), 8)
    assert two.watch(sink)
    sealed = two.seal_custom(b"x", bytes(14))
    one.open(bytearray(sealed), 0, len(sealed), len(sealed), bytes(14))
    train = bytes(one.seal_parts(head_of(data), data, 0, 0, 4, seam.noise(4)))
    assert open_all(two, train, 952)[-1].accepted == 4
    assert two.confirmed == 1


@every
def test_longer_messages_are_refused(make_lane: Any, make_sink: Any) -> None:
    one, _ = lanes(make_lane)
    with pytest.raises(ValueError, match="size"):
        one.seal_custom(bytes(1025), bytes(14))


@every
def test_a_train_of_symbols_fills_a_watched_sink(make_lane: Any, make_sink: Any) -> None:
    one, two = lanes(make_lane)
    data = blob(60)
    sink: Sink = make_sink(key_of(data), 60)
    assert two.watch(sink)
    train = bytes(one.seal_parts(head_of(data), data, 0, 0, 60, seam.noise(60)))
    (opened,) = open_all(two, train, 952)
    assert (opened.kind, opened.done, opened.accepted, opened.touched) == (Kind.DONE, sink, 60, [sink])
    assert bytes(sink.whole(len(data))) == data
    assert (sink.received, sink.sources) == (60, 60)
    assert len(opened.sealed) == seam.CONFIRM_DATAGRAM
    back = one.open(bytearray(opened.sealed), 0, len(opened.sealed), seam.CONFIRM_DATAGRAM, bytes(14))
    assert back.kind is Kind.END
    assert [rldp2.parse(ack) for ack in back.acks] == [rldp2.Confirm(TRANSFER, 0, 32, 0xFFFFFFFF, 32)]


@every
def test_of_several_confirmations_of_a_part_the_newest_is_kept(make_lane: Any, make_sink: Any) -> None:
    one, two = lanes(make_lane)
    transfers = (TRANSFER, b"\x08" * 32, TRANSFER)
    confirms = [rldp2.pack_confirm(transfer, 0, 10 + n, 1, n) for n, transfer in enumerate(transfers)]
    train = b"".join(one.seal_custom(confirm, bytes(14)) for confirm in confirms)
    (opened,) = open_all(two, train, seam.CONFIRM_DATAGRAM)
    assert (opened.kind, opened.accepted, opened.acks) == (Kind.END, 3, [confirms[2], confirms[1]])


@every
def test_lost_symbols_do_not_put_a_confirmation_off(make_lane: Any, make_sink: Any) -> None:
    data = blob(100)
    sink: Sink = make_sink(key_of(data), 100)
    for esi in range(0, 32, 2):
        sink.put(esi, bytes(768))
    assert not sink.due
    sink.put(31, bytes(768))
    assert sink.due
    sink.confirm()
    assert not sink.due


@every
def test_without_noise_for_another_confirmation_the_train_pauses(make_lane: Any, make_sink: Any) -> None:
    one, two = lanes(make_lane)
    data = blob(70)
    two.watch(make_sink(key_of(data), 70))
    train = bytearray(one.seal_parts(head_of(data), data, 0, 0, 70, seam.noise(70)))
    first = two.open(train, 0, len(train), 952, bytes(14))
    assert (first.kind, first.next) == (Kind.PAUSE, 32 * 952)
    assert two.open(train, first.next, len(train), 952, bytes(28)).kind is Kind.DONE


@every
def test_an_unknown_part_stops_the_train_and_the_rest_goes_on_once_it_is_watched(
    make_lane: Any, make_sink: Any
) -> None:
    one, two = lanes(make_lane)
    data = blob(6)
    train = bytearray(one.seal_parts(head_of(data), data, 0, 0, 6, seam.noise(6)))
    first = two.open(train, 0, len(train), 952, bytes(14))
    assert (first.kind, first.next, len(first.data)) == (Kind.CUSTOM, 952, 840)
    sink: Sink = make_sink(key_of(data), 6)
    assert sink.put(0, first.data[72:]) == 0
    two.watch(sink)
    second = two.open(train, first.next, len(train), 952, bytes(14))
    assert (second.kind, second.next, second.accepted) == (Kind.DONE, len(train), 5)
    assert bytes(sink.whole(len(data))) == data


@every
def test_extra_symbols_are_kept_and_stop_at_asks_for_a_solution(make_lane: Any, make_sink: Any) -> None:
    data = blob(4)
    sink: Sink = make_sink(key_of(data), 4)
    symbols = {n: bytes((n,)) * 768 for n in (1, 9, 30, 2, 5)}
    assert [sink.put(n, symbols[n]) for n in (1, 9, 9, 30)] == [0, 0, 0, 0]
    assert sink.put(2, symbols[2]) == 1
    sink.stop_at = 9
    assert sink.put(5, symbols[5]) == 0
    assert sink.symbols() == symbols
    assert (sink.received, sink.sources) == (5, 2)


@every
def test_a_sink_has_a_bound(make_lane: Any, make_sink: Any) -> None:
    data = blob(2)
    sink: Sink = make_sink(key_of(data), 2)
    sink.stop_at = 1 << 20
    assert [sink.put(100 + n, bytes(768)) for n in range(2 + seam.SPARE)] == [0] * (2 + seam.SPARE)
    assert sink.put(500, bytes(768)) == 2
    assert sink.put(1 << 24, bytes(768)) == 2
    assert sink.received == 2 + seam.SPARE
    assert make_lane().watch(sink)
    many = make_lane()
    assert all(many.watch(make_sink(key_of(data, bytes((n,)) * 32), 2)) for n in range(seam.MAX_SINKS))
    assert not many.watch(make_sink(key_of(data, b"\xfe\xff" * 16), 2))


@every
def test_sequence_numbers_are_taken_once_and_in_a_window(make_lane: Any, make_sink: Any) -> None:
    lane: Lane = make_lane()
    assert [lane.next_seqno() for _ in range(3)] == [1, 2, 3]
    assert lane.accept(1, 0)
    assert not lane.accept(1, 0)
    assert not lane.accept(2, 4)
    assert not lane.accept(0, 0)
    assert not lane.accept(5, -1)
    assert lane.accept(300, 3)
    assert lane.accept(45, 0)
    assert not lane.accept(44, 0)
    assert not lane.accept(45, 0)
    assert lane.accept(1 << 62, 0)
    assert not lane.accept(300, 0)
    assert lane.in_seqno == 1 << 62
    lane.reset()
    assert (lane.in_seqno, lane.out_seqno) == (0, 0)
    assert lane.accept(1, 0)


@every
def test_what_is_unusual_is_handed_up_and_what_is_broken_is_counted(make_lane: Any, make_sink: Any) -> None:
    one, two = lanes(make_lane)
    two.next_seqno()
    message = wire.pack_message(wire.Custom(b"hello"))
    plain = wire.build_contents([message, message], seqno=1, confirm_seqno=0)
    unusual = ID_B + wire.seal(KEY_B, plain)
    opened = two.open(bytearray(unusual), 0, len(unusual), len(unusual), bytes(14))
    assert (opened.kind, opened.data, opened.accepted) == (Kind.PLAIN, plain, 0)
    good = one.seal_custom(b"one", bytes(14))
    broken = good[:70] + bytes((good[70] ^ 1,)) + good[71:]
    again = one.seal_custom(b"two", bytes(14))
    mixed = open_all(two, broken + good + good + again + bytes(len(good)), len(good))
    assert [(step.kind, step.data, step.bad, step.refused) for step in mixed] == [
        (Kind.CUSTOM, b"one", 1, 0),
        (Kind.CUSTOM, b"two", 0, 1),
        (Kind.STRAY, b"", 0, 0),
    ]


@every
def test_dates_and_versions_beside_a_message_do_not_matter(make_lane: Any, make_sink: Any) -> None:
    _, two = lanes(make_lane)
    message = wire.pack_message(wire.Custom(b"x" * 300))
    for number, extra in enumerate(
        [{"address_version": 7}, {"dates": (5, 6)}, {"address_version": 7, "dates": (5, 6)}]
    ):
        plain = wire.build_contents([message], seqno=number + 1, confirm_seqno=0, **extra)  # type: ignore[arg-type]
        sealed = ID_B + wire.seal(KEY_B, plain)
        opened = two.open(bytearray(sealed), 0, len(sealed), len(sealed), bytes(14))
        assert (opened.kind, opened.data) == (Kind.CUSTOM, b"x" * 300)


@every
def test_a_view_of_a_part_outlives_its_sink(make_lane: Any, make_sink: Any) -> None:
    sink: Sink = make_sink(key_of(blob(1)), 1)
    assert sink.put(0, b"\5" * 768) == 1
    view = sink.whole(763)
    del sink
    assert bytes(view) == b"\5" * 763


def test_the_environment_chooses_the_implementation() -> None:
    code = "from tonfs.network import lane; print(lane.implementation)"
    found = subprocess.run(
        [sys.executable, "-c", code], env={"TONFS_PACKETS": "python"}, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "python"


def test_a_helper_of_other_sources_is_left_alone_and_that_is_said() -> None:
    """An `.so` that an earlier installation left behind lacks functions, or means something else by them."""
    code = """
import sys, types
module = types.ModuleType("tonfs.network._fast._packets")
module.ffi, module.lib = None, types.SimpleNamespace({functions})
sys.modules[module.__name__] = module
import tonfs.network.lane as lane
print(lane.implementation, lane.make_lane.__name__)
"""
    for functions in ("tf_start=len", "tf_start=len, tf_version=lambda: -1"):
        found = subprocess.run(
            [sys.executable, "-c", code.replace("{functions}", functions)],
            env={},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.split() == ["python", "PythonLane"]
        assert len(found.stderr.splitlines()) == 1
        assert "C helper is not used" in found.stderr


# Sums of symbols.


@pytest.mark.parametrize("mix", MIXES)
def test_sums_of_symbols_by_hand(mix: seam.Mix) -> None:
    """2 * 0x80 = 0x1d in the field of RFC 6330; what lies behind the end counts as zeros."""
    data = b"\x80" * 768 + b"\x03" * 5
    assert mix(bytes((2, 0)), 2, data) == b"\x1d" * 768
    assert mix(bytes((0, 1)), 2, data) == b"\x03" * 5 + bytes(763)
    assert mix(bytes((1, 1, 2, 255)), 2, bytes(0)) == bytes(2 * 768)
    assert mix(b"", 2, data) == b""
    for rows, k in ((bytes(3), 2), (bytes(1), 1)):
        with pytest.raises(ValueError, match="size"):
            mix(rows, k, data)


@every
def test_lost_symbols_come_out_of_the_first_sums_that_suffice(make_lane: Any, make_sink: Any) -> None:
    data = blob(6)
    sink: Sink = make_sink(key_of(data), 6)
    for esi in (1, 3, 4, 5):
        sink.put(esi, data[768 * esi :][:768].ljust(768, b"\0"))
    rows = [bytes((7, 1, 9, 0, 0, 200)), bytes((14, 3, 18, 1, 1, 1)), bytes((1, 0, 2, 0, 0, 0))]
    for number, row in enumerate(rows):
        assert sink.put(6 + 2 * number, MIXES[0](row, 6, data)) == (number > 0)
        assert sink.extra() == [6, 8, 10][: number + 1]
        before = sink.symbols()
        # The second row says the same about the lost symbols as the first, twice.
        assert sink.fill(b"".join(rows[: number + 1])) == (number == 2)
        assert number == 2 or sink.symbols() == before
    assert bytes(sink.whole(len(data))) == data
    with pytest.raises(ValueError, match="size"):
        sink.fill(rows[0])


@every
def test_more_lost_symbols_than_a_sum_is_for_are_left_to_others(make_lane: Any, make_sink: Any) -> None:
    data = blob(seam.MAX_LOST + 5)
    k = seam.MAX_LOST + 5
    for lost in (seam.MAX_LOST, seam.MAX_LOST + 1):
        sink: Sink = make_sink(key_of(data), k)
        for esi in range(lost, k):
            sink.put(esi, data[768 * esi :][:768].ljust(768, b"\0"))
        rows = b"".join(bytes(n == column for column in range(k)) for n in range(lost))
        for n in range(lost):
            sink.put(k + n, data[768 * n : 768 * n + 768])
        assert sink.fill(rows) == (lost == seam.MAX_LOST)


# The same bytes from both.


@BOTH
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    k=st.integers(1, 24),
    lost=st.sets(st.integers(0, 23)),
    extra=st.integers(0, seam.SPARE),
    octets=st.sampled_from([b"\0\1", b"\0\0\0\1\xff", bytes(range(256))]),
    short=st.integers(0, 767),
    seed=st.integers(0, 1 << 32),
)
def test_both_make_and_solve_the_same_sums(
    k: int, lost: set[int], extra: int, octets: bytes, short: int, seed: int
) -> None:
    rng = random.Random(seed)
    data = rng.randbytes(768 * k - short)
    rows = bytes(rng.choice(octets) for _ in range(k * extra))
    one, two = (mix(rows, k, data) for mix in MIXES)
    assert one == two
    found = []
    for _, make_sink in IMPLEMENTATIONS:
        sink: Sink = make_sink(bytes(60), k)
        for esi in range(k):
            if esi not in lost:
                sink.put(esi, data[768 * esi :][:768].ljust(768, b"\0"))
        for n in range(extra):
            sink.put(k + n, one[768 * n : 768 * n + 768])
        filled = sink.fill(rows)
        assert not filled or bytes(sink.whole(len(data))) == data
        found.append(filled or sink.symbols())
    assert found[0] == found[1]


@BOTH
@settings(max_examples=30, deadline=None, derandomize=True)
@given(rows=st.binary(max_size=64), lost=st.sets(st.integers(0, 7)), symbols=st.binary(max_size=3000))
def test_both_make_the_same_of_sums_that_contradict_each_other(rows: bytes, lost: set[int], symbols: bytes) -> None:
    """A liar's symbols: which of them count is laid down, so the same rubbish comes out."""
    count = len(rows) // 8
    found: list[bytes] = []
    for _, make_sink in IMPLEMENTATIONS:
        sink: Sink = make_sink(bytes(60), 8)
        for esi in [n for n in range(8) if n not in lost] + list(range(8, 8 + count)):
            sink.put(esi, symbols[esi * 100 : esi * 100 + 768].ljust(768, b"\1"))
        found.append(bytes(sink.whole(8 * 768)) if sink.fill(rows[: 8 * count]) else b"")
    assert found[0] == found[1]


def state(opened: Opened, tags: dict[int, int]) -> tuple[Any, ...]:
    """An `Opened` with sinks by their number."""
    done = None if opened.done is None else tags[id(opened.done)]
    touched = [tags[id(sink)] for sink in opened.touched]
    return (*opened[:6], done, touched, opened.sealed, opened.acks)


PARTS = [blob(3, 1), blob(30, 2), blob(171, 3), b"x"]


@st.composite
def datagrams(draw: st.DrawFn) -> bytes:
    """One datagram for lane B: a symbol, a message, another packet, or rubbish; perhaps damaged, perhaps cut."""
    seqno = draw(st.one_of(st.integers(1, 400), st.integers(-(1 << 63), (1 << 63) - 1)))
    confirm = draw(st.one_of(st.just(0), st.integers(-2, 5), st.integers(-(1 << 63), (1 << 63) - 1)))
    kind = draw(st.integers(0, 5))
    if kind <= 2:
        number = draw(st.integers(0, len(PARTS)))
        data = PARTS[number % len(PARTS)]
        esi = draw(st.one_of(st.integers(0, 40), st.integers(-(1 << 31), (1 << 31) - 1)))
        head = bytearray(head_of(data, bytes((number,)) * 32))
        if draw(st.integers(0, 9)) == 0:
            head[draw(st.integers(0, 63))] ^= draw(st.integers(1, 255))
        symbol = bytes((esi & 255,)) * draw(st.sampled_from([768, 768, 768, 764, 0]))
        custom = bytes(head) + esi.to_bytes(4, "little", signed=True) + tl.pack_bytes(symbol)
    elif kind == 3:
        custom = rldp2.pack_confirm(bytes((draw(st.integers(0, 2)),)) * 32, draw(st.integers(0, 1)), seqno & 255, 5, 7)
        custom = custom[: draw(st.sampled_from([52, 52, 52, 51]))]
    else:
        custom = draw(st.binary(max_size=300))
    messages = [wire.pack_message(wire.Custom(custom))]
    if kind == 4:
        messages = draw(st.sampled_from([[], [wire.pack_message(wire.Nop())], messages * 2]))
    fields: dict[str, Any] = {}
    if draw(st.integers(0, 3)) == 0:
        fields = draw(st.sampled_from([{"address_version": 1}, {"dates": (1, 2)}, {"from_key": bytes(31) + b"\1"}]))
    plain = wire.build_contents(messages, seqno=seqno, confirm_seqno=confirm, rand1=b"1234567", **fields)
    if kind == 5:
        plain = draw(st.one_of(st.binary(max_size=200), st.just(plain[: draw(st.integers(0, len(plain)))])))
    if draw(st.integers(0, 5)) == 0 and plain:
        at = draw(st.integers(0, min(len(plain), 120) - 1))
        plain = plain[:at] + draw(st.binary(min_size=1, max_size=2)) + plain[at + 1 :]
    longer = draw(st.integers(0, 5))
    if longer == 0 and plain[4:5] == b"\x07":
        plain = plain[:4] + b"\x0f" + b"8" * 15 + plain[12:]
    sealed = ID_B + wire.seal(KEY_B, plain)
    if draw(st.integers(0, 9)) == 0:
        sealed = sealed[: draw(st.integers(0, len(sealed)))]
    if draw(st.integers(0, 19)) == 0:
        sealed = draw(st.binary(max_size=100))
    return sealed


@BOTH
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(datagrams(), max_size=16), st.integers(0, 3), st.sampled_from([0, 0, 1, 63, 64, 500]))
def test_both_open_any_datagrams_alike(stream: list[bytes], watched: int, step: int) -> None:
    ends: list[tuple[Lane, list[Sink], dict[int, int]]] = []
    for make_lane, make_sink in IMPLEMENTATIONS:
        lane = lanes(make_lane)[1]
        sinks = [make_sink(key_of(data, bytes((n,)) * 32), -(-len(data) // 768)) for n, data in enumerate(PARTS)]
        for sink in sinks[: watched + 1]:
            lane.watch(sink)
        ends.append((lane, sinks, {id(sink): n for n, sink in enumerate(sinks)}))
    for train in [b"".join(stream)] if step else stream:
        buffer, at = bytearray(train), 0
        while at < len(buffer):
            one, two = (lane.open(buffer, at, len(buffer), step or len(train), bytes(28)) for lane, _, _ in ends)
            assert state(one, ends[0][2]) == state(two, ends[1][2])
            for opened, (lane, _, _) in zip((one, two), ends, strict=True):
                if opened.kind is Kind.DONE and opened.done is not None:
                    lane.unwatch(opened.done)
            at = one.next + (step or len(train) if one.kind is Kind.STRAY else 0)
    for first, second in zip(ends[0][1], ends[1][1], strict=True):
        assert first.symbols() == second.symbols()
        assert (first.received, first.sources, first.unconfirmed) == (
            second.received,
            second.sources,
            second.unconfirmed,
        )
        assert first.confirm() == second.confirm()
    assert ends[0][0].in_seqno == ends[1][0].in_seqno


@BOTH
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    turns=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 70)), min_size=1, max_size=8),
    trouble=st.sampled_from([0.0, 0.01, 0.1]),
    noises=st.integers(1, 4),
    seed=st.integers(0, 1 << 32),
)
def test_both_open_trains_of_symbols_alike(
    turns: list[tuple[int, int]], trouble: float, noises: int, seed: int
) -> None:
    """Symbols in a row, of one part or several in turn, and what may happen to them on the way."""
    rng = random.Random(seed)
    keys = [bytes((n,)) * 32 for n in range(len(PARTS))]
    sender = lanes(PythonLane)[0]
    datagrams, following = [], [0] * len(PARTS)
    for part, count in turns:
        data, first = PARTS[part], following[part]
        left = max(0, min(count, -(-len(data) // 768) + 5 - first))
        following[part] += left
        sealed = bytes(sender.seal_parts(head_of(data, keys[part]), data, 768 * first, first, left, bytes(14 * left)))
        datagrams += [sealed[at : at + 952] for at in range(0, len(sealed), 952)]
    stream = []
    for datagram in datagrams:
        roll = rng.random() / trouble if trouble else 9.0
        if roll < 0.5:
            continue
        if roll < 1:
            stream.insert(rng.randrange(len(stream) + 1), datagram)
        stream.append(bytes((datagram[0], *rng.randbytes(1))) + datagram[2:] if 1 <= roll < 1.1 else datagram)
        if 1.1 <= roll < 1.3:
            stream[-1] = datagram[:70] + rng.randbytes(1) + datagram[71:]
    ends: list[tuple[Lane, list[Sink], dict[int, int]]] = []
    for make_lane, make_sink in IMPLEMENTATIONS:
        lane = lanes(make_lane)[1]
        sinks = [make_sink(key_of(data, key), -(-len(data) // 768)) for data, key in zip(PARTS, keys, strict=True)]
        for sink in sinks[seed % 2 :]:
            lane.watch(sink)
        sinks[1].stop_at, sinks[2].stop_at = seed % 40, seed % 200
        ends.append((lane, sinks, {id(sink): n for n, sink in enumerate(sinks)}))
    buffer, at = bytearray(b"".join(stream)), 0
    while at < len(buffer):
        one, two = (lane.open(buffer, at, len(buffer), 952, bytes(14 * noises)) for lane, _, _ in ends)
        assert state(one, ends[0][2]) == state(two, ends[1][2])
        for opened, (lane, _, _) in zip((one, two), ends, strict=True):
            if opened.done is not None and opened.done.sources == opened.done.k:
                lane.unwatch(opened.done)
        at = one.next + (952 if one.kind is Kind.STRAY else 0)
    for first, second in zip(ends[0][1], ends[1][1], strict=True):
        assert first.symbols() == second.symbols()
        assert (first.unconfirmed, first.due, first.confirm()) == (second.unconfirmed, second.due, second.confirm())
    assert ends[0][0].in_seqno == ends[1][0].in_seqno
    assert ends[0][0].confirmed == ends[1][0].confirmed
    for seqno in range(ends[0][0].in_seqno, ends[0][0].in_seqno - 256, -1):  # the same ones were seen
        assert ends[0][0].accept(seqno, 0) == ends[1][0].accept(seqno, 0)


@BOTH
@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(-5, 600), st.integers(-1, 20)), max_size=80), st.integers(0, 15), st.integers(0, 20)
)
def test_both_accept_the_same_numbers(numbers: list[tuple[int, int]], sent: int, promised: int) -> None:
    one, two = (make_lane() for make_lane, _ in IMPLEMENTATIONS)
    for _ in range(sent):
        assert one.next_seqno() == two.next_seqno()
    one.promised = two.promised = promised
    for seqno, confirm in numbers:
        assert one.accept(seqno, confirm) == two.accept(seqno, confirm)
        assert (one.in_seqno, one.out_seqno, one.confirmed) == (two.in_seqno, two.out_seqno, two.confirmed)


@BOTH
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.binary(max_size=3000), st.integers(0, 5000), st.integers(0, 1 << 20), st.integers(0, 6), st.randoms())
def test_both_seal_the_same_bytes(source: bytes, offset: int, first: int, count: int, rng: random.Random) -> None:
    noise = rng.randbytes(14 * count)
    one, two = (lanes(make_lane)[0] for make_lane, _ in IMPLEMENTATIONS)
    head = rng.randbytes(64)
    assert bytes(one.seal_parts(head, source, offset, first, count, noise)) == bytes(
        two.seal_parts(head, source, offset, first, count, noise)
    )
    message = source[:1024]
    assert one.seal_custom(message, bytes(14)) == two.seal_custom(message, bytes(14))
    assert one.out_seqno == two.out_seqno
