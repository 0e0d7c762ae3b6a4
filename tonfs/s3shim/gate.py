"""Where connections come in: one by one, and who does not finish TLS's handshake goes soon.

asyncio's own server begins a handshake with everybody who comes, and gives each a minute: strangers without a key could
hold as many descriptors, and about 50 KiB each, as they like.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final

HANDSHAKE: Final = 10.0
"""Seconds that a handshake may take."""
MAX_HANDSHAKES: Final = 512
"""At once. Beyond it the one that was begun first is given up."""
GOODBYE: Final = 2.0
"""Seconds that a client gets to end TLS in order, before the connection is closed all the same."""
BACKLOG: Final = 512
_PAUSE: Final = 0.1
"""Seconds to wait when no connection can be taken, say, because no descriptor is left."""


async def listen(host: str, port: int) -> list[socket.socket]:
    """On all addresses of a host (port 0 picks one for all of them). Raises OSError."""
    loop = asyncio.get_running_loop()
    found: list[socket.socket] = []
    try:
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(infos):
            one = socket.socket(family, kind, protocol)
            found.append(one)
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address[0], port or found[0].getsockname()[1], *address[2:]))
            one.listen(BACKLOG)
    except BaseException:
        for one in found:
            one.close()
        raise
    return found


class Gate:
    """Lives in one asyncio loop, from being made until `close`."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        factory: Callable[[], asyncio.BaseProtocol],
        tls: ssl.SSLContext | None,
    ) -> None:
        """`factory` makes the protocol of a connection."""
        self._sockets = sockets
        self._factory = factory
        self._words = {} if tls is None else {"ssl_handshake_timeout": HANDSHAKE, "ssl_shutdown_timeout": GOODBYE}
        self._tls = tls
        self._greetings: dict[asyncio.Task[None], None] = {}
        """Those that were begun and are not over, the oldest first."""
        self._taking = [asyncio.create_task(self._take(one)) for one in sockets]

    async def _take(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(_PAUSE)
                continue
            if len(self._greetings) >= MAX_HANDSHAKES:
                self._give_up(next(iter(self._greetings)))
            task = asyncio.create_task(self._greet(connection))
            self._greetings[task] = None
            task.add_done_callback(lambda done: self._greetings.pop(done, None))

    def _give_up(self, greeting: asyncio.Task[None]) -> None:
        del self._greetings[greeting]
        greeting.cancel()

    async def _greet(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # the client went away, or speaks no TLS
            await loop.connect_accepted_socket(self._factory, connection, ssl=self._tls, **self._words)

    async def close(self) -> None:
        """Nobody comes in any more; connections that are in stay."""
        tasks = [*self._taking, *self._greetings]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for one in self._sockets:
            one.close()
