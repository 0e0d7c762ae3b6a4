"""How fast RLDP2 answers move between two processes on loopback, and what a packet costs.

    .venv/bin/python benchmarks/network_loopback.py [--megabytes 128] [--runs 3] [--size 131772] [--loss 0]

Prints, per variant, MB/s of answer bytes and CPU microseconds per datagram on both sides. Variants: `tonfs` as it is,
`portable` with the `cryptography` package instead of libcrypto, and `raw`: bare sendto/recvfrom of datagrams of the
same size with an acknowledgement every 64 (what the sockets alone allow).
"""

from __future__ import annotations

import argparse
import resource
import socket
import subprocess
import sys
import time
from statistics import median

import trio

from tonfs.clock import SystemClock
from tonfs.network import adnl_packet, adnl_peer, aes_ctr
from tonfs.network.api import Peer
from tonfs.network.keys import KeyPair
from tonfs.network.node import AdnlNode

SERVER = KeyPair.from_seed(b"\x01" * 32)
IN_FLIGHT = 10
DATAGRAM = 952
RAW_ACK = 64


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def choose(variant: str) -> None:
    if variant == "portable":
        for module in (adnl_peer, adnl_packet):
            module.crypt = aes_ctr.crypt_portable  # type: ignore[attr-defined]


async def serve(size: int, loss: float) -> None:
    node = AdnlNode(("127.0.0.1", 0), clock=SystemClock(), loss=loss, loss_seed=1)
    endpoint = node.add_identity(SERVER)
    blob = bytes(range(256)) * (size // 256 + 1)

    async def answer(peer: Peer, data: bytes, by_rldp: bool) -> bytes | None:
        if data == b"cpu":
            return f"{cpu()} {node.stats.datagrams_out}".encode()
        return blob[:size]

    endpoint.set_handler(answer)
    async with trio.open_nursery() as nursery:
        _, port = await nursery.start(node.run)
        print(port, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


async def download(port: int, size: int, count: int, loss: float) -> tuple[float, float, float]:
    """(MB/s, server CPU us per datagram sent, client CPU us per datagram received)"""
    node = AdnlNode(("127.0.0.1", 0), clock=SystemClock(), loss=loss, loss_seed=2)
    endpoint = node.add_identity(KeyPair.generate())
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        peer = endpoint.peer(SERVER.public_key, ("127.0.0.1", port))
        await peer.rldp_query(b"warm", max_answer=size, timeout=30)

        async def server_state() -> tuple[float, int]:
            used, sent = (await peer.query(b"cpu", timeout=30)).split()
            return float(used), int(sent)

        left = count

        async def fetch() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                assert len(await peer.rldp_query(b"get", max_answer=size, timeout=60)) == size

        used, sent = await server_state()
        before, received, start = cpu(), node.stats.datagrams_in, time.perf_counter()
        async with trio.open_nursery() as group:
            for _ in range(IN_FLIGHT):
                group.start_soon(fetch)
        elapsed = time.perf_counter() - start
        mine = cpu() - before
        received = node.stats.datagrams_in - received
        used_after, sent_after = await server_state()
        nursery.cancel_scope.cancel()
    server_cost = (used_after - used) / (sent_after - sent)
    return count * size / elapsed / 1e6, server_cost * 1e6, mine / received * 1e6


def raw_serve() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    print(sock.getsockname()[1], flush=True)
    datagram = bytes(DATAGRAM)
    while True:
        request, peer = sock.recvfrom(2048)
        if request == b"cpu":
            sock.sendto(str(cpu()).encode(), peer)
        elif request == b"end":
            return
        else:
            for _ in range(RAW_ACK):
                sock.sendto(datagram, peer)


def raw_download(port: int, count: int) -> tuple[float, float, float]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    server = ("127.0.0.1", port)
    rounds = count // RAW_ACK
    sock.sendto(b"cpu", server)
    used = float(sock.recv(100))
    before, start = cpu(), time.perf_counter()
    for _ in range(4):
        sock.sendto(b"go", server)
    for number in range(rounds):
        for _ in range(RAW_ACK):
            sock.recvfrom(2048)
        if number + 4 < rounds:
            sock.sendto(b"go", server)
    elapsed, mine = time.perf_counter() - start, cpu() - before
    sock.sendto(b"cpu", server)
    used = float(sock.recv(100)) - used
    sock.sendto(b"end", server)
    datagrams = rounds * RAW_ACK
    return datagrams * 768 / elapsed / 1e6, used / datagrams * 1e6, mine / datagrams * 1e6


def measure(variant: str, arguments: argparse.Namespace) -> tuple[float, float, float]:
    command = [sys.executable, __file__, "--serve", variant, "--size", str(arguments.size)]
    command += ["--loss", str(arguments.loss)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        amount = arguments.megabytes * 1_000_000
        if variant == "raw":
            return raw_download(port, amount // 768)
        choose(variant)
        result = trio.run(download, port, arguments.size, max(1, amount // arguments.size), arguments.loss)
        for module in (adnl_peer, adnl_packet):
            module.crypt = aes_ctr.crypt  # type: ignore[attr-defined]
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--size", type=int, default=131_772, help="bytes of one answer (a piece with its proof)")
    parser.add_argument("--loss", type=float, default=0.0, help="share of datagrams dropped by each side, each way")
    parser.add_argument("--variants", default="tonfs,portable,raw")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve == "raw":
        raw_serve()
        return
    if arguments.serve:
        choose(arguments.serve)
        trio.run(serve, arguments.size, arguments.loss)
        return
    print(f"{'variant':10} {'MB/s median (best)':>20} {'server us/datagram':>20} {'client us/datagram':>20}")
    for variant in arguments.variants.split(","):
        rows = [measure(variant, arguments) for _ in range(arguments.runs)]
        speed, server, client = zip(*rows, strict=True)
        shown = f"{median(speed):.1f} ({max(speed):.1f})"
        print(f"{variant:10} {shown:>20} {median(server):20.1f} {median(client):20.1f}", flush=True)


if __name__ == "__main__":
    main()
