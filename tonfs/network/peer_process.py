"""The peer process: one UDP socket, all bags of a volume, a control socket for the agent.

    python -m tonfs.network.peer_process --socket run/peer.sock --key-file keys/peer.key --global-config FILE
        [--listen 127.0.0.1:0] [--announce-ip IP] [--loss 0.02] [--upload-limit BYTES] [--upload-limit-per-peer BYTES]

A process of its own, because packet work beside a busy Python thread costs both more than twice their speed (reference
network-speed section 5). It ends on SIGTERM, on `shutdown`, and with its parent when `control.process.Child` started
it.
"""

from __future__ import annotations

import argparse
import gc
import ipaddress
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio

from ..clock import SystemClock
from ..control import serve
from ..control.process import die_with_parent
from ..errors import TonfsError, UsageError
from ..log import configure, get_logger
from . import lane
from .acquaintances import Acquaintances, stay_in_touch
from .address import reach_of, usable
from .adnl_hub import UNLIMITED
from .api import UdpAddress
from .dht_client import DhtClient
from .global_config import load_global_config
from .keys import load_or_create
from .node import AdnlNode
from .peer_control import node_handlers
from .provider_link import ProviderLink
from .storage_node import StorageNode
from .upload import Upload

log = get_logger(__name__)


@dataclass(frozen=True)
class PeerOptions:
    """`listen`: UDP; port 0 picks a free one. `announce_ip`: IPv4 text, or empty. `loss`: share of datagrams.
    `upload`: how fast peers are served."""

    socket: Path
    key_file: Path
    global_config: Path
    listen: UdpAddress = ("127.0.0.1", 0)
    announce_ip: str = ""
    loss: float = 0.0
    upload: Upload = UNLIMITED


def parse_udp(text: str) -> UdpAddress:
    """`127.0.0.1:3333`. Raises UsageError."""
    host, _, port = text.rpartition(":")
    try:
        return str(ipaddress.IPv4Address(host)), _port(port)
    except ValueError:
        raise UsageError(f"Not an IPv4 address and port: {text!r}.", hint="Write it as 127.0.0.1:3333.") from None


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise ValueError
    return int(text)


async def run_peer(
    options: PeerOptions, *, task_status: trio.TaskStatus[UdpAddress] = trio.TASK_STATUS_IGNORED
) -> None:
    """Work until cancelled or told to shut down; `started` gives the announced address.

    Raises NotFound and BadData for the global config, Damaged for the key file, Busy when the socket is served by
    another process, UsageError when the UDP address cannot be bound.
    """
    network = load_global_config(options.global_config)
    clock = SystemClock()
    known = Acquaintances(options.key_file.with_name(f"{options.key_file.name}.known"))
    node = AdnlNode(
        known.listen(options.listen),
        clock=clock,
        announce_ip=options.announce_ip,
        reach=reach_of(options.listen[0], options.announce_ip, network.hosts),
        loss=options.loss,
        upload=options.upload,
    )
    endpoint = node.add_identity(load_or_create(options.key_file))
    dht = DhtClient(endpoint, network.dht_nodes, clock, k=network.k, a=network.a)
    storage = StorageNode(endpoint, dht, ProviderLink(endpoint, dht), clock)
    async with trio.open_nursery() as nursery:

        async def shutdown(params: dict[str, Any]) -> dict[str, Any]:
            nursery.start_soon(_stop_soon, nursery.cancel_scope)
            return {}

        try:
            await nursery.start(node.run)
        except OSError as exc:
            raise UsageError(f"UDP {options.listen[0]}:{options.listen[1]} cannot be used: {exc.strerror}.") from None
        await nursery.start(dht.run)
        await nursery.start(storage.run)
        if usable(endpoint.address):
            dht.announce_address()
        limits = {"upload": options.upload.total, "upload_per_peer": options.upload.per_peer}
        handlers = {**node_handlers(storage, endpoint, lambda: asdict(node.stats), limits), "shutdown": shutdown}
        await nursery.start(_serve, options.socket, handlers)
        nursery.start_soon(stay_in_touch, known, endpoint, endpoint.address[1])
        address = f"{endpoint.address[0]}:{endpoint.address[1]}"
        log.info("peer runs", id=endpoint.id, address=address, packets=lane.implementation)
        task_status.started(endpoint.address)


async def _serve(path: Path, handlers: dict[str, Any], *, task_status: trio.TaskStatus[None]) -> None:
    await serve(path, handlers, task_status=task_status)


async def _stop_soon(scope: trio.CancelScope) -> None:
    await trio.sleep(0.1)  # the answer to `shutdown` goes out first
    scope.cancel()


async def _until_told(options: PeerOptions) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def work() -> None:
                await run_peer(options)
                nursery.cancel_scope.cancel()

            nursery.start_soon(work)
            async for number in signals:
                log.info("peer ends", signal=signal.Signals(number).name)
                nursery.cancel_scope.cancel()


def parse_options(arguments: Sequence[str]) -> tuple[PeerOptions, int, str]:
    """(options, log level, log format). Raises UsageError; argparse ends the process for unknown words."""
    parser = argparse.ArgumentParser(prog="python -m tonfs.network.peer_process", allow_abbrev=False)
    parser.add_argument("--socket", type=Path, required=True, help="control socket to serve")
    parser.add_argument("--key-file", type=Path, required=True, help="32-byte seed; made when absent")
    parser.add_argument("--global-config", type=Path, required=True, help="the network's global.config.json")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="IP:PORT", help="UDP address; port 0: any")
    parser.add_argument("--announce-ip", default="", metavar="IP", help="public address that others are told")
    parser.add_argument("--loss", type=float, default=0.0, help="share of datagrams dropped, for rehearsals")
    for name, what in (("upload-limit", "all peers together"), ("upload-limit-per-peer", "one peer")):
        parser.add_argument(f"--{name}", type=int, default=0, metavar="BYTES", help=f"a second to {what}; 0: no limit")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what peers do, too")
    parser.add_argument("--log-format", choices=["text", "json"], default="text")
    words = parser.parse_args(arguments)
    if not 0.0 <= words.loss < 1.0:
        raise UsageError("--loss must lie between 0 and 1.")
    if min(words.upload_limit, words.upload_limit_per_peer) < 0:
        raise UsageError("Upload limits cannot be negative.")
    if words.announce_ip:
        parse_udp(f"{words.announce_ip}:1")
    options = PeerOptions(
        socket=words.socket,
        key_file=words.key_file,
        global_config=words.global_config,
        listen=parse_udp(words.listen),
        announce_ip=words.announce_ip,
        loss=words.loss,
        upload=Upload(words.upload_limit, words.upload_limit_per_peer),
    )
    return options, logging.DEBUG if words.verbose else logging.INFO, words.log_format


def calm_collector() -> None:
    """Packet work makes many short-lived tuples and no cycles: look for cycles seldom, and not in what is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _leaf(exc: BaseException) -> BaseException:
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 after an orderly end, the error's own otherwise."""
    die_with_parent()
    configure()
    try:
        options, level, log_format = parse_options(sys.argv[1:] if arguments is None else arguments)
        configure(level, log_format)
        calm_collector()
        trio.run(_until_told, options)
    except BaseException as wrapped:
        exc = _leaf(wrapped)
        if not isinstance(exc, TonfsError):
            raise
        log.error(exc.message, code=exc.code, hint=exc.hint)
        return exc.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
