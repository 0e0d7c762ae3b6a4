"""What a hundred large bodies at once cost the process that serves them."""

from __future__ import annotations

import base64
import hashlib
import random
import re
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.s3.raw import answer, connect, head
from tests.s3.signer import Client
from tests.s3.test_process import free_port, made, serving, volume

__all__ = ["volume"]

CLIENTS = 100
LIMIT_MIB = 200
BODY = random.Random(2).randbytes(8 << 20)
SHA256 = hashlib.sha256(BODY).hexdigest()

Make = Callable[[Client, int], tuple[str, dict[str, str], bytes]]
"""Client, number -> target, signed headers, body as it travels."""


def peak_mib(pid: int) -> float:
    """The most that was resident since the process began."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) / 1024


@contextmanager
def connected(address: str, authority: str | None) -> Iterator[socket.socket]:
    with connect(address, timeout=120) as plain:
        if authority is None:
            yield plain
            return
        with ssl.create_default_context(cafile=authority).wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
            yield wrapped


def send_all_at_once(client: Client, make: Make, authority: str | None = None) -> set[int]:
    """Statuses. No body ends before half of each has gone out."""
    half = threading.Barrier(CLIENTS, timeout=120)
    found: list[int] = []

    def one(number: int) -> None:
        target, headers, body = make(client, number)
        with connected(client.host, authority) as connection:
            connection.sendall(head("PUT", target, headers) + body[: len(body) // 2])
            half.wait()
            connection.sendall(body[len(body) // 2 :])
            found.append(answer(connection).status)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == CLIENTS
    return set(found)


def as_object(client: Client, number: int) -> tuple[str, dict[str, str], bytes]:
    target = f"/bkt/object-{number}"
    return target, client.signed("PUT", target, payload=SHA256) | {"content-length": str(len(BODY))}, BODY


def framed() -> tuple[bytes, str]:
    """The body as boto3 sends it over TLS: aws-chunked with a trailer, inside HTTP's own chunks."""
    size = 1 << 20
    lines = [b"%x\r\n%b\r\n" % (size, BODY[at : at + size]) for at in range(0, len(BODY), size)]
    checksum = base64.b64encode(zlib.crc32(BODY).to_bytes(4, "big"))
    inner = b"".join(lines) + b"0\r\nx-amz-checksum-crc32:" + checksum + b"\r\n\r\n"
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner), str(len(BODY))


FRAMED, LENGTH = framed()


def as_trailer(client: Client, number: int) -> tuple[str, dict[str, str], bytes]:
    target = f"/bkt/trailer-{number}"
    words = {
        "content-encoding": "aws-chunked",
        "x-amz-trailer": "x-amz-checksum-crc32",
        "x-amz-decoded-content-length": LENGTH,
    }
    headers = client.signed("PUT", target, headers=words, payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER")
    return target, headers | {"transfer-encoding": "chunked"}, FRAMED


def new_client(volume: Path, port: int) -> Client:
    key = made(volume, "s3", "key", "new", "--json")
    return Client(f"127.0.0.1:{port}", key["access_key"], key["secret_key"], timeout=120)


def test_a_hundred_parts_and_a_hundred_objects_of_8_mib_at_once(volume: Path) -> None:
    port = free_port()
    client = new_client(volume, port)
    with serving(volume, port) as process:
        assert client.request("PUT", "/bkt").status == 200
        upload = client.request("POST", "/bkt/big", [("uploads", "")]).texts("UploadId")[0]

        def as_part(client: Client, number: int) -> tuple[str, dict[str, str], bytes]:
            query = [("partNumber", str(number + 1)), ("uploadId", upload)]
            headers = client.signed("PUT", "/bkt/big", query, payload=SHA256) | {"content-length": str(len(BODY))}
            return f"/bkt/big?partNumber={number + 1}&uploadId={upload}", headers, BODY

        assert send_all_at_once(client, as_part) == {200}
        assert send_all_at_once(client, as_object) == {200}
        assert client.request("GET", "/bkt/object-7").body == BODY
        assert peak_mib(process.pid) < LIMIT_MIB


def test_the_same_over_tls_in_the_way_that_boto3_sends_it(
    volume: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from scripts.interop.s3 import certificate

    authority, key = [str(path) for path in certificate(tmp_path_factory.mktemp("tls"))]
    port = free_port()
    client = new_client(volume, port)
    with serving(volume, port) as process:
        assert client.request("PUT", "/bkt").status == 200
        process.terminate()
        assert process.wait(30) == 0
    with serving(volume, port, "--tls-certificate", authority, "--tls-key", key) as process:
        assert send_all_at_once(client, as_trailer, authority) == {200}
        assert peak_mib(process.pid) < LIMIT_MIB
