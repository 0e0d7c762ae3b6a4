"""Whom a peer process was in touch with, kept across its restarts.

A peer that does not know that we were started again goes on sending through a channel that we forgot, to a port that we
may have lost; tonutils-storage does so for minutes (its first sign of trouble is a ping of 15 s that stays unanswered,
then it waits 60 s and longer). So a new process takes its old UDP port when that is free, and says hello to those who
knew the old one: any packet of ours with a newer start date makes them begin anew at the address where we are.

File (docs/formats.md, "Acquaintances"): JSON, replaced as a whole. What is damaged counts as empty.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import trio

from ..errors import TonfsError
from ..log import get_logger
from . import overlay
from .address import usable
from .api import Peer, UdpAddress

log = get_logger(__name__)

VERSION: Final = 1
MOST: Final = 32
"""C++ takes a burst of 75 packets without a channel from one host (reference protocol 2.7)."""
KEEP_EVERY: Final = 30.0
HEARD_WITHIN: Final = 600.0
"""Daemons drop a connection after 10 minutes of silence."""
HELLO_FOR: Final = 0.9
_HELLO: Final = overlay.wrap(bytes(32), overlay.pack_get_random_peers([]))
"""A query of an overlay that nobody is in: it says that we are here and asks for nothing. Not `overlay.ping`:
tonutils-storage does not know it and drops the whole packet."""

Acquaintance = tuple[bytes, UdpAddress]
"""(Ed25519 public key, address)."""


class Acquaintances:
    """The file of one identity."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.port = 0
        """The UDP port of the last life; 0: none."""
        self.peers: list[Acquaintance] = []
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            self._load(json.loads(path.read_bytes()))

    def _load(self, value: object) -> None:
        if not isinstance(value, dict) or value["version"] != VERSION:
            return
        port = value["port"]
        peers = [(bytes.fromhex(key), (str(ip), int(port))) for key, ip, port in value["peers"][:MOST]]
        self.port = port if isinstance(port, int) and 0 < port < 65536 else 0
        self.peers = [(key, address) for key, address in peers if len(key) == 32 and usable(address)]

    def listen(self, wanted: UdpAddress) -> UdpAddress:
        """Where to listen: any port (0) means the old one when it is free."""
        if wanted[1] or not self.port:
            return wanted
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((wanted[0], self.port))
            except OSError:
                return wanted
        return wanted[0], self.port

    def keep(self, port: int, peers: Sequence[Acquaintance]) -> None:
        """Write the file when it would change. A full disk is no reason to stop."""
        peers = sorted(peers[:MOST])
        if port == self.port and peers == self.peers:
            return
        value = {"version": VERSION, "port": port, "peers": [[key.hex(), *address] for key, address in peers]}
        draft = self._path.with_name(self._path.name + ".new")
        try:
            draft.write_text(json.dumps(value), encoding="ascii")
            os.replace(draft, self._path)
            self.port, self.peers = port, list(peers)
        except OSError as exc:
            log.debug("acquaintances were not kept", reason=str(exc))


class Meeting(Protocol):
    """What is needed of an endpoint (`NodeEndpoint` is one)."""

    def peer(self, public_key: bytes, address: UdpAddress) -> Peer: ...

    def heard(self, since: float) -> list[Acquaintance]:
        """Peers heard since that trio time, the latest first."""
        ...


async def stay_in_touch(known: Acquaintances, endpoint: Meeting, port: int) -> None:
    """Say hello to those of the last life, then keep the file up to date until cancelled."""
    try:
        async with trio.open_nursery() as nursery:
            for public_key, address in known.peers:
                nursery.start_soon(partial(_hello, endpoint, public_key, address))
            while True:
                await trio.sleep(KEEP_EVERY)
                known.keep(port, endpoint.heard(trio.current_time() - HEARD_WITHIN))
    finally:
        known.keep(port, endpoint.heard(trio.current_time() - HEARD_WITHIN) or known.peers)


async def _hello(endpoint: Meeting, public_key: bytes, address: UdpAddress) -> None:
    with contextlib.suppress(TonfsError):
        await endpoint.peer(public_key, address).query(_HELLO, timeout=HELLO_FOR)
