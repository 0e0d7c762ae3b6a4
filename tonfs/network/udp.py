"""A non-blocking IPv4 UDP socket that moves many datagrams per system call where Linux can (UDP_SEGMENT, UDP_GRO).

A run of datagrams of one size to one address costs one call to send, and arrives as one buffer: a fifth of the
system time (reference network-speed section 1). Kernels or routes that cannot do it get plain `sendto`.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from .api import UdpAddress

SOCKET_BUFFER: Final = 4 << 20
MAX_DATAGRAM: Final = 2048
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
MAX_RUN: Final = 64
MAX_RUN_BYTES: Final = 65_000
JOIN: Final = 32 << 10
_LONGEST: Final = 1 << 16
# Plain numbers: an operation on an enum's member costs as much as ten on these.
_UDP: Final = int(socket.IPPROTO_UDP)
_TRUNCATED: Final = int(socket.MSG_TRUNC)
_SIZE = struct.Struct("=H")
_GRO_SIZE = struct.Struct("=i")
_FALLBACK: Final = (errno.EINVAL, errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT, errno.EMSGSIZE)


class Train(NamedTuple):
    """Datagrams of `step` bytes each (the last may be shorter), one behind the other."""

    data: bytes | bytearray
    step: int

    @property
    def number(self) -> int:
        """How many."""
        return -(-len(self.data) // self.step) if self.data else 1

    def datagrams(self) -> list[bytes]:
        """One by one."""
        data, step = bytes(self.data), self.step
        return [data[at : at + step] for at in range(0, len(data), step)] or [data]


def runs(trains: list[Train]) -> Iterator[tuple[list[bytes | bytearray | memoryview], int, int]]:
    """What one segmented sending each can carry, in order: (buffers, bytes of a datagram, number of datagrams).

    All datagrams of a run have one size; the last may be shorter.
    """
    run: list[bytes | bytearray | memoryview] = []
    size = total = count = 0
    whole = False  # all datagrams of the run so far have its size: more may follow
    for data, step in trains:
        length = len(data)
        step = max(1, min(step, length))
        at = 0
        while True:
            joins = whole and length > 0 and (step == size or length <= step < size)
            room = min(MAX_RUN - count, (MAX_RUN_BYTES - total) // step) if joins else 0
            if room < 1:
                if run:
                    yield run, size, count
                run, size, total, count = [], step, 0, 0
                room = max(1, min(MAX_RUN, MAX_RUN_BYTES // step))
            end = min(length, at + room * step)
            run.append(data if end - at == length else memoryview(data)[at:end])
            total += end - at
            count += max(1, -(-(end - at) // step))
            whole = total == count * size
            at = end
            if at >= length:
                break
    if run:
        yield run, size, count


class _Arrived(NamedTuple):
    at: int
    size: int
    step: int
    source: UdpAddress


class UdpSocket:
    """Bound to `listen` on construction. Raises OSError when that is impossible."""

    def __init__(self, listen: UdpAddress, *, batched: bool = True) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self.sock.setblocking(False)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                self.sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
            self.sock.bind(listen)
        except OSError:
            self.sock.close()
            raise
        self._segment = batched
        if batched:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        self.buffer = bytearray(JOIN + _LONGEST)
        """What `receive` filled."""
        self._view = memoryview(self.buffer)
        self._waiting: _Arrived | None = None
        self._dry = False
        self.sent = self.sent_bytes = self.failed = 0

    @property
    def address(self) -> UdpAddress:
        host, port = self.sock.getsockname()
        return host, port

    def close(self) -> None:
        self.sock.close()

    @property
    def waiting(self) -> bool:
        """Something was read that `receive` did not hand out yet; the kernel will not wake anybody for it."""
        return self._waiting is not None

    def receive(self, *, join: bool = True) -> tuple[int, int, UdpAddress] | None:
        """(bytes, bytes of each datagram, source) of what was waiting from one source, now in `buffer`; None when the
        socket is empty. No bytes: something was waiting that is of no use.

        `join`: datagrams that the kernel handed out singly are put behind each other, up to `JOIN` bytes.
        """
        found, self._waiting = self._waiting, None
        if found is not None:
            self.buffer[: found.size] = self.buffer[found.at : found.at + found.size]
        elif self._dry:
            self._dry = False
        else:
            found = self._read(0)
        if found is None:
            return None
        _, total, step, source = found
        while join and total < JOIN and total and total % step == 0:
            more = self._read(total)
            if more is None:
                self._dry = True
                break
            if more.source != source or not (more.step == step or 0 < more.size < step):
                self._waiting = more
                break
            total += more.size
        return total, step, source

    def _read(self, at: int) -> _Arrived | None:
        """What the kernel hands out next, now in the buffer at `at`."""
        try:
            size, ancillary, flags, source = self.sock.recvmsg_into([self._view[at : at + _LONGEST]], 64)
        except BlockingIOError:
            return None
        except OSError:
            return _Arrived(at, 0, 1, ("", 0))  # an ICMP error of an earlier sending; says nothing about this socket
        step = size
        for level, kind, data in ancillary:
            if level == _UDP and kind == UDP_GRO and len(data) >= _GRO_SIZE.size:
                step = _GRO_SIZE.unpack_from(data)[0]
        if not 0 < step <= MAX_DATAGRAM or flags & _TRUNCATED:
            return _Arrived(at, 0, 1, source)
        return _Arrived(at, size, step, source)

    def send(self, trains: list[Train], address: UdpAddress) -> None:
        """Send in order. What the kernel does not take is lost, as datagrams may be; counted in `failed`."""
        if len(trains) == 1 and trains[0].step >= len(trains[0].data):
            self._send_one(trains[0].data, address)
        elif not self._segment:
            self._send_singly(trains, address)
        else:
            for buffers, size, count in runs(trains):
                if count == 1:
                    self._send_one(buffers[0], address)
                else:
                    self._send_run(buffers, size, count, address)

    def _send_singly(self, trains: list[Train], address: UdpAddress) -> None:
        for train in trains:
            for datagram in train.datagrams():
                self._send_one(datagram, address)

    def _send_run(
        self, buffers: list[bytes | bytearray | memoryview], size: int, count: int, address: UdpAddress
    ) -> None:
        if self._segment:
            control = [(_UDP, UDP_SEGMENT, _SIZE.pack(size))]
            try:
                self.sent_bytes += self.sock.sendmsg(buffers, control, 0, address)
                self.sent += count
                return
            except OSError as exc:
                if exc.errno not in _FALLBACK:
                    self.failed += count
                    return
                self._segment = False
        self._send_singly([Train(b"".join(buffers), size)], address)

    def _send_one(self, datagram: bytes | bytearray | memoryview, address: UdpAddress) -> None:
        try:
            self.sent_bytes += self.sock.sendto(datagram, address)
            self.sent += 1
        except OSError:
            self.failed += 1
