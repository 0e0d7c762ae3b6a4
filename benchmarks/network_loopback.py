"""How fast RLDP2 answers move between two processes on loopback, and what a packet costs.

    .venv/bin/python benchmarks/network_loopback.py [--megabytes 128] [--runs 3] [--size 131772] [--loss 0,0.01,0.05]

Per variant and loss: MB/s of answer bytes by the clock, and what counts on a busy machine: CPU us per datagram
and MB/s per CPU second, of both sides. Variants: `native` with the C helper, `python` without it, and `raw`: bare
sendto/recvfrom of datagrams of the same size with an acknowledgement every 64.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import trio

from tonfs.clock import SystemClock
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


async def download(port: int, size: int, count: int, loss: float) -> dict[str, float]:
    node = AdnlNode(("127.0.0.1", 0), clock=SystemClock(), loss=loss, loss_seed=2)
    endpoint = node.add_identity(KeyPair.generate())
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        peer = endpoint.peer(SERVER.public_key, ("127.0.0.1", port))
        for _ in range(10):
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
    return row(count * size / 1e6, elapsed, used_after - used, mine, sent_after - sent, received)


def row(megabytes: float, elapsed: float, server: float, client: float, sent: int, received: int) -> dict[str, float]:
    return {
        "MB/s": megabytes / elapsed,
        "serve MB/s/core": megabytes / server,
        "get MB/s/core": megabytes / client,
        "serve us/datagram": server / sent * 1e6,
        "get us/datagram": client / received * 1e6,
        "sent/needed": sent * 768 / (megabytes * 1e6),
    }


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


def raw_download(port: int, count: int) -> dict[str, float]:
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
    return row(datagrams * 768 / 1e6, elapsed, used, mine, datagrams, datagrams)


def measure(variant: str, loss: float, arguments: argparse.Namespace) -> dict[str, float]:
    """One run, both sides in processes of their own."""
    environment = {**os.environ, "TONFS_PACKETS": "python" if variant == "python" else ""}
    words = [sys.executable, __file__, "--size", str(arguments.size), "--loss", str(loss), "--variants", variant]
    words += ["--megabytes", str(arguments.megabytes)]
    with subprocess.Popen([*words, "--side", "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env=environment) as server:  # fmt: skip
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        client = [*words, "--side", "get", "--port", port]
        found: dict[str, float] = json.loads(subprocess.run(client, check=True, capture_output=True, text=True,
                                                            env=environment).stdout)  # fmt: skip
        return found


def one_side(arguments: argparse.Namespace) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[0 if arguments.side == "serve" else 1]})
    loss, amount = float(arguments.loss), arguments.megabytes * 1_000_000
    if arguments.side == "serve":
        if arguments.variants == "raw":
            raw_serve()
        else:
            trio.run(serve, arguments.size, loss)
    elif arguments.variants == "raw":
        print(json.dumps(raw_download(arguments.port, amount // 768)))
    else:
        count = max(1, amount // arguments.size)
        print(json.dumps(trio.run(download, arguments.port, arguments.size, count, 0.0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--size", type=int, default=131_772, help="bytes of one answer (a piece with its proof)")
    parser.add_argument("--loss", default="0,0.01,0.05", help="shares of datagrams dropped, each way")
    parser.add_argument("--variants", default="native,python,raw")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=["serve", "get"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        one_side(arguments)
        return
    cases = [(variant, float(loss)) for variant in arguments.variants.split(",") for loss in arguments.loss.split(",")]
    cases = [(variant, loss) for variant, loss in cases if variant != "raw" or not loss]
    runs: dict[tuple[str, float], list[dict[str, float]]] = {case: [] for case in cases}
    for _ in range(arguments.runs):
        for case in cases:
            runs[case].append(measure(*case, arguments))
    rows = [{"variant": variant, "loss": loss, **best(found)} for (variant, loss), found in runs.items()]
    print("  ".join(f"{name:>17}" for name in rows[0]))
    for one in rows:
        print("  ".join(f"{value if isinstance(value, str) else round(value, 2):>17}" for value in one.values()))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"schema": "tonfs.bench.network/1", "rows": rows}, indent=2))


def best(runs: list[dict[str, float]]) -> dict[str, float]:
    """The best of each figure: what comes nearest to a machine of our own."""
    return {name: (max if "MB/s" in name else min)(run[name] for run in runs) for name in runs[0]}


if __name__ == "__main__":
    main()
