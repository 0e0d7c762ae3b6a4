from __future__ import annotations

import errno
import socket
from contextlib import closing

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tonfs.network.api import UdpAddress
from tonfs.network.udp import MAX_RUN, MAX_RUN_BYTES, Train, UdpSocket, runs


@st.composite
def trains(draw: st.DrawFn) -> list[Train]:
    sizes = draw(st.lists(st.tuples(st.sampled_from([0, 1, 60, 952, 1400]), st.integers(1, 150)), max_size=40))
    made = []
    for number, (step, count) in enumerate(sizes):
        cut = draw(st.integers(0, max(0, step - 1)))
        data = b"".join((number * 1000 + n).to_bytes(4, "big").ljust(step, b"x")[:step] for n in range(count))
        made.append(Train(data[: len(data) - cut], step or 1))
    return made


@settings(deadline=None)
@given(trains())
def test_runs_keep_order_and_the_kernels_rules(waiting: list[Train]) -> None:
    found = list(runs(waiting))
    assert [d for run, size, _ in found for d in Train(b"".join(run), size).datagrams()] == [
        d for train in waiting for d in train.datagrams()
    ]
    for run, size, count in found:
        whole = b"".join(run)
        assert count <= MAX_RUN
        assert count == 1 or len(whole) <= MAX_RUN_BYTES
        assert count == Train(whole, size).number


def singly(datagrams: list[bytes]) -> list[Train]:
    return [Train(datagram, len(datagram)) for datagram in datagrams]


def taken(sock: UdpSocket) -> list[bytes] | None:
    """What `receive` brought."""
    arrived = sock.receive()
    return None if arrived is None else Train(bytes(sock.buffer[: arrived[0]]), arrived[1]).datagrams()


async def collect(sock: UdpSocket, count: int) -> list[bytes]:
    got: list[bytes] = []
    with trio.fail_after(10):
        while len(got) < count:
            await trio.lowlevel.wait_readable(sock.sock)
            while (arrived := taken(sock)) is not None:
                got += arrived
    return got


DATAGRAMS = [bytes((n,)) * 952 for n in range(150)] + [b"short", b"a", b"b" * 1440]


@pytest.mark.parametrize("sender", [True, False])
@pytest.mark.parametrize("receiver", [True, False])
async def test_batched_and_plain_sockets_understand_each_other(sender: bool, receiver: bool) -> None:
    here = ("127.0.0.1", 0)
    with closing(UdpSocket(here, batched=sender)) as a, closing(UdpSocket(here, batched=receiver)) as b:
        a.send(singly(DATAGRAMS), b.address)
        assert await collect(b, len(DATAGRAMS)) == DATAGRAMS
        assert (a.sent, a.sent_bytes, a.failed) == (len(DATAGRAMS), sum(map(len, DATAGRAMS)), 0)
        assert taken(b) is None


async def test_single_datagrams_are_joined_and_those_of_several_senders_kept_apart() -> None:
    here = ("127.0.0.1", 0)
    with closing(UdpSocket(here)) as a, closing(UdpSocket(here)) as b, closing(UdpSocket(here)) as c:
        sizes = [952] * 5 + [164, 952, 952, 1440, 1440, 3, 952]
        sent: list[tuple[UdpAddress, bytes]] = []
        for number, size in enumerate(sizes * 3):
            sender = b if number % 9 == 7 else a
            data = number.to_bytes(2, "big") + bytes(size - 2)
            sender.send(singly([data]), c.address)
            sent.append((sender.address, data))
        got: list[tuple[UdpAddress, bytes]] = []
        calls = 0
        with trio.fail_after(10):
            while len(got) < len(sent):
                if not c.waiting:
                    await trio.lowlevel.wait_readable(c.sock)
                while (arrived := c.receive(join=calls % 7 != 6)) is not None:
                    calls += 1
                    size, step, source = arrived
                    got += [(source, one) for one in Train(bytes(c.buffer[:size]), step).datagrams()]
        assert got == sent
        assert calls < len(sent)


class Refusing:
    """A socket whose kernel cannot segment."""

    def __init__(self, real: socket.socket, code: int) -> None:
        self.real, self.code, self.calls = real, code, 0

    def sendmsg(self, *args: object) -> int:
        self.calls += 1
        raise OSError(self.code, "no")

    def sendto(self, data: bytes, address: tuple[str, int]) -> int:
        return self.real.sendto(data, address)

    def close(self) -> None:
        self.real.close()


async def test_without_segmentation_datagrams_go_one_by_one() -> None:
    here = ("127.0.0.1", 0)
    with closing(UdpSocket(here)) as a, closing(UdpSocket(here)) as b:
        refusing = Refusing(a.sock, errno.EINVAL)
        a.sock = refusing  # type: ignore[assignment]
        a.send(singly(DATAGRAMS), b.address)
        a.send(singly(DATAGRAMS[:2]), b.address)
        assert await collect(b, len(DATAGRAMS) + 2) == DATAGRAMS + DATAGRAMS[:2]
        assert refusing.calls == 1


def test_a_full_socket_loses_datagrams_and_counts_them() -> None:
    with closing(UdpSocket(("127.0.0.1", 0))) as a:
        a.sock.close()
        a.send(singly(DATAGRAMS[:3]), ("127.0.0.1", 9))
        assert (a.sent, a.failed) == (0, 3)


def test_datagrams_longer_than_any_peer_sends_are_dropped() -> None:
    with closing(UdpSocket(("127.0.0.1", 0))) as a, closing(UdpSocket(("127.0.0.1", 0))) as b:
        a.send(singly([bytes(5000)]), b.address)
        a.send(singly([b"x"]), b.address)
        assert b.receive() == (0, 1, a.address)
        assert taken(b) == [b"x"]


async def test_a_train_arrives_as_it_left() -> None:
    here = ("127.0.0.1", 0)
    data = b"".join(bytes((n,)) * 952 for n in range(130))
    with closing(UdpSocket(here)) as a, closing(UdpSocket(here)) as b:
        a.send([Train(data, 952), Train(bytearray(data[:952]), 952), Train(b"end", 3)], b.address)
        assert await collect(b, 132) == [*Train(data, 952).datagrams(), data[:952], b"end"]
        assert a.sent == 132


def test_a_taken_port_is_an_error() -> None:
    with closing(UdpSocket(("127.0.0.1", 0))) as a, pytest.raises(OSError, match="in use"):
        UdpSocket(a.address)
