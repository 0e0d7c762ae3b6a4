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
from typing import Final

from .api import UdpAddress

SOCKET_BUFFER: Final = 4 << 20
MAX_DATAGRAM: Final = 2048
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
MAX_RUN: Final = 64
MAX_RUN_BYTES: Final = 65_000
_SIZE = struct.Struct("=H")
_GRO_SIZE = struct.Struct("=i")
_FALLBACK: Final = (errno.EINVAL, errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT, errno.EMSGSIZE)


def runs(datagrams: list[bytes]) -> Iterator[list[bytes]]:
    """Cut into runs that one segmented sending can carry: equal sizes (the last may be shorter), in order."""
    run: list[bytes] = []
    size = total = 0
    for datagram in datagrams:
        length = len(datagram)
        closed = run and (len(run[-1]) != size or length > size)
        if closed or len(run) == MAX_RUN or (run and total + length > MAX_RUN_BYTES):
            yield run
            run = []
        if not run:
            size, total = length, 0
        run.append(datagram)
        total += length
    if run:
        yield run


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
        self._buffer = memoryview(bytearray(1 << 16))
        self.sent = self.sent_bytes = self.failed = 0

    @property
    def address(self) -> UdpAddress:
        host, port = self.sock.getsockname()
        return host, port

    def close(self) -> None:
        self.sock.close()

    def receive(self) -> tuple[list[bytes], UdpAddress] | None:
        """Datagrams of one source that were waiting, perhaps none; None when the socket is empty."""
        try:
            size, ancillary, flags, source = self.sock.recvmsg_into([self._buffer], 64)
        except BlockingIOError:
            return None
        except OSError:
            return [], ("", 0)  # an ICMP error of an earlier sending; says nothing about this socket
        step = size
        for level, kind, data in ancillary:
            if level == socket.IPPROTO_UDP and kind == UDP_GRO and len(data) >= _GRO_SIZE.size:
                step = _GRO_SIZE.unpack_from(data)[0]
        buffer = self._buffer
        if step > MAX_DATAGRAM or flags & socket.MSG_TRUNC:
            return [], source
        if step >= size:
            return [bytes(buffer[:size])], source
        whole = bytes(buffer[:size])
        return [whole[at : at + step] for at in range(0, size, step)], source

    def send(self, datagrams: list[bytes], address: UdpAddress) -> None:
        """Send in order. What the kernel does not take is lost, as datagrams may be; counted in `failed`."""
        if not self._segment or len(datagrams) == 1:
            for datagram in datagrams:
                self._send_one(datagram, address)
            return
        for run in runs(datagrams):
            if len(run) == 1 or not self._segment:
                for datagram in run:
                    self._send_one(datagram, address)
            else:
                self._send_run(run, address)

    def _send_run(self, run: list[bytes], address: UdpAddress) -> None:
        control = [(socket.IPPROTO_UDP, UDP_SEGMENT, _SIZE.pack(len(run[0])))]
        try:
            self.sent_bytes += self.sock.sendmsg(run, control, 0, address)
            self.sent += len(run)
        except OSError as exc:
            if exc.errno not in _FALLBACK:
                self.failed += len(run)
                return
            self._segment = False
            for datagram in run:
                self._send_one(datagram, address)

    def _send_one(self, datagram: bytes, address: UdpAddress) -> None:
        try:
            self.sent_bytes += self.sock.sendto(datagram, address)
            self.sent += 1
        except OSError:
            self.failed += 1
