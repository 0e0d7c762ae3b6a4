from __future__ import annotations

import errno
import socket
from contextlib import closing

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tonfs.network.udp import MAX_RUN, MAX_RUN_BYTES, UdpSocket, runs


@given(st.lists(st.sampled_from([0, 1, 60, 952, 1400]), max_size=300))
def test_runs_keep_order_and_the_kernels_rules(sizes: list[int]) -> None:
    datagrams = [n.to_bytes(4, "big").ljust(size, b"x")[:size] for n, size in enumerate(sizes)]
    found = list(runs(datagrams))
    assert [d for run in found for d in run] == datagrams
    for run in found:
        assert len(run) <= MAX_RUN
        assert len(run) == 1 or sum(map(len, run)) <= MAX_RUN_BYTES
        assert len({len(d) for d in run[:-1]}) <= 1
        assert len(run[-1]) <= len(run[0])


async def collect(sock: UdpSocket, count: int) -> list[bytes]:
    got: list[bytes] = []
    with trio.fail_after(10):
        while len(got) < count:
            await trio.lowlevel.wait_readable(sock.sock)
            while (arrived := sock.receive()) is not None:
                got += arrived[0]
    return got


DATAGRAMS = [bytes((n,)) * 952 for n in range(150)] + [b"short", b"", b"a", b"b" * 1440]


@pytest.mark.parametrize("sender", [True, False])
@pytest.mark.parametrize("receiver", [True, False])
async def test_batched_and_plain_sockets_understand_each_other(sender: bool, receiver: bool) -> None:
    here = ("127.0.0.1", 0)
    with closing(UdpSocket(here, batched=sender)) as a, closing(UdpSocket(here, batched=receiver)) as b:
        a.send(DATAGRAMS, b.address)
        assert await collect(b, len(DATAGRAMS)) == DATAGRAMS
        assert (a.sent, a.sent_bytes, a.failed) == (len(DATAGRAMS), sum(map(len, DATAGRAMS)), 0)
        assert b.receive() is None


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
        a.send(DATAGRAMS, b.address)
        a.send(DATAGRAMS[:2], b.address)
        assert await collect(b, len(DATAGRAMS) + 2) == DATAGRAMS + DATAGRAMS[:2]
        assert refusing.calls == 1


def test_a_full_socket_loses_datagrams_and_counts_them() -> None:
    with closing(UdpSocket(("127.0.0.1", 0))) as a:
        a.sock.close()
        a.send(DATAGRAMS[:3], ("127.0.0.1", 9))
        assert (a.sent, a.failed) == (0, 3)


def test_datagrams_longer_than_any_peer_sends_are_dropped() -> None:
    with closing(UdpSocket(("127.0.0.1", 0))) as a, closing(UdpSocket(("127.0.0.1", 0))) as b:
        a.send([bytes(5000)], b.address)
        a.send([b"x"], b.address)
        first, second = b.receive(), b.receive()
        assert first is not None
        assert first[0] == []
        assert second is not None
        assert second[0] == [b"x"]


def test_a_taken_port_is_an_error() -> None:
    with closing(UdpSocket(("127.0.0.1", 0))) as a, pytest.raises(OSError, match="in use"):
        UdpSocket(a.address)
