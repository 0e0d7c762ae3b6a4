"""`adnl.addressList`: where a node can be reached (reference protocol 2.2).

Foreign lists may hold kinds of addresses that we do not speak (IPv6, QUIC, tunnels); they are skipped, but the bytes
are kept so that signatures over an object that holds the list can still be checked. We publish IPv4/UDP only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ..errors import BadPacket
from . import tl
from .api import UdpAddress

MAX_ADDRESSES: Final = 16
"""C++ limits a list to 128 bytes (8 UDP addresses); a little more is tolerated on reading."""

_TUNNEL_KEYS: Final = (tl.PUB_ED25519, tl.PUB_AES)


def pack_ip(text: str) -> int:
    """IPv4 text as the number that TL carries: first octet most significant. Raises ValueError."""
    return int(ipaddress.IPv4Address(text))


def unpack_ip(number: int) -> str:
    """The signed or unsigned 32-bit number of TL and JSON as IPv4 text."""
    return str(ipaddress.IPv4Address(number & 0xFFFFFFFF))


def usable(address: UdpAddress) -> bool:
    """Can a datagram be sent there at all? (Loopback can: the devnet lives on it.)"""
    host, port = address
    ip = ipaddress.IPv4Address(host)
    return 0 < port < 65536 and not (ip.is_multicast or ip.is_unspecified or host == "255.255.255.255")


@dataclass(frozen=True)
class Reach:
    """Which addresses belong to the configured network. Records, lists and gossip are written by strangers: an address
    in them may be a machine in the user's own house, or, on a devnet, one in the world.

    `loopback_only`: nothing else is ever spoken to. `private`: addresses that the internet does not route (loopback
    among them) may come from others; without it only those in `hosts`, which the global config names.
    """

    loopback_only: bool = False
    private: bool = True
    hosts: frozenset[str] = frozenset()

    def may_call(self, address: UdpAddress) -> bool:
        """May we speak first to an address that somebody told us? Raises ValueError: not IPv4 text."""
        host = address[0]
        ip = ipaddress.IPv4Address(host)
        if self.loopback_only:
            return ip.is_loopback
        return self.private or ip.is_global or host in self.hosts

    def may_answer(self, host: str) -> bool:
        """May we answer a datagram that came from there? On a public network also from private addresses: routers and
        containers put theirs in the place of the sender's."""
        return not self.loopback_only or host.startswith("127.")


ANYWHERE: Final = Reach()


def reach_of(listen: str, announce: str = "", hosts: Iterable[str] = ()) -> Reach:
    """The reach of a node that listens on IPv4 `listen` and tells others `announce` (if not empty), in a network whose
    global config names `hosts`: of a devnet those are on loopback, so nothing leaves this machine."""
    named = frozenset(hosts)
    loopback = bool(named) and all(ipaddress.IPv4Address(host).is_loopback for host in named)
    shown = ipaddress.IPv4Address(announce or listen)
    private = not (shown.is_global or shown.is_unspecified)  # the user put this node into a private network
    return Reach(loopback or ipaddress.IPv4Address(listen).is_loopback, private, named)


def default_listen(hosts: Iterable[str]) -> str:
    """IPv4 address to listen on when the user named none: this machine only, unless the global config names others."""
    return "127.0.0.1" if all(ipaddress.IPv4Address(host).is_loopback for host in hosts) else "0.0.0.0"


@dataclass(frozen=True)
class AddressList:
    """`addresses`: the usable UDP ones, in order. `version` and `reinit_date`: unix time of the owner's start."""

    addresses: tuple[UdpAddress, ...]
    version: int
    reinit_date: int
    priority: int = 0
    expire_at: int = 0

    @property
    def first(self) -> UdpAddress | None:
        return self.addresses[0] if self.addresses else None

    def bare(self) -> bytes:
        """Bytes without a constructor id, as they stand inside `dht.node` and `adnl.packetContents`."""
        items = [tl.Writer(tl.ADNL_ADDRESS_UDP).u32(pack_ip(host)).u32(port).done() for host, port in self.addresses]
        writer = tl.Writer().vector(items)
        return writer.i32(self.version).i32(self.reinit_date).i32(self.priority).i32(self.expire_at).done()

    def boxed(self) -> bytes:
        """A DHT value."""
        return tl.Writer(tl.ADNL_ADDRESS_LIST).raw(self.bare()).done()

    @classmethod
    def read(cls, reader: tl.Reader) -> AddressList:
        """Read a bare list. Raises BadPacket."""
        found = [_read_address(reader) for _ in range(reader.count(MAX_ADDRESSES))]
        return cls(
            addresses=tuple(address for address in found if address is not None and usable(address)),
            version=reader.i32(),
            reinit_date=reader.i32(),
            priority=reader.i32(),
            expire_at=reader.i32(),
        )

    @classmethod
    def parse(cls, data: bytes) -> AddressList:
        """A boxed list that fills `data`. Raises BadPacket."""
        reader = tl.Reader(data)
        reader.expect(tl.ADNL_ADDRESS_LIST)
        result = cls.read(reader)
        reader.end()
        return result


def _read_address(reader: tl.Reader) -> UdpAddress | None:
    kind = reader.u32()
    if kind == tl.ADNL_ADDRESS_UDP:
        ip = reader.u32()
        return unpack_ip(ip), reader.i32()
    if kind == tl.ADNL_ADDRESS_UDP6:
        reader.raw(20)
    elif kind == tl.ADNL_ADDRESS_QUIC:
        reader.raw(8)
    elif kind == tl.ADNL_ADDRESS_TUNNEL:
        reader.int256()
        if reader.u32() not in _TUNNEL_KEYS:
            raise BadPacket("tunnel address with an unknown kind of key")
        reader.int256()
    elif kind != tl.ADNL_ADDRESS_REVERSE:
        raise BadPacket(f"unknown kind of address {kind:08x}")
    return None
