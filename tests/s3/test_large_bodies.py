"""Bodies that pass aiohttp's parser by: what comes before, behind and instead of their bytes."""

from __future__ import annotations

import errno
import hashlib
import random
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import trio

from tests.s3.conftest import S3, in_thread
from tests.s3.raw import Raw, answer, connect, head
from tonfs.errors import FsError
from tonfs.s3shim import straight
from tonfs.s3shim.app import serve_s3
from tonfs.s3shim.door import BLOCK
from tonfs.s3shim.listen import Safety

BODY = random.Random(1).randbytes(3 * (1 << 20) + 12_345)
MD5 = hashlib.md5(BODY).hexdigest()


@pytest.fixture
async def bucket(s3: S3) -> S3:
    assert (await s3.put("/bkt")).status == 200
    return s3


@pytest.fixture(autouse=True)
def straight_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Counts the bodies that went the short way: these tests are about nothing else."""
    lengths: list[int] = []
    original = straight.Rest.__init__

    def init(self: straight.Rest, owner: object, transport: object, left: int, give_back: object) -> None:
        lengths.append(left)
        original(self, owner, transport, left, give_back)  # type: ignore[arg-type]

    monkeypatch.setattr(straight.Rest, "__init__", init)
    yield lengths
    assert lengths


def put(s3: S3, path: str, body: bytes = BODY, **more: str) -> bytes:
    headers = s3.client.signed("PUT", path, headers=more, body=body) | {"content-length": str(len(body))}
    return head("PUT", path, headers)


def get(s3: S3, path: str) -> bytes:
    return head("GET", path, s3.client.signed("GET", path))


async def stored(s3: S3, path: str) -> bytes:
    found = await s3.get(path)
    return found.body if found.status == 200 else b""


@pytest.mark.parametrize("first", [0, 1, 100_000, len(BODY) - straight.LEAST])
async def test_the_next_request_on_the_connection_is_served(bucket: S3, first: int) -> None:
    """However much of the body came with its head."""

    def work() -> tuple[Raw, Raw, Raw]:
        with connect(bucket.address) as connection:
            connection.sendall(put(bucket, "/bkt/a") + BODY[:first])
            connection.sendall(BODY[first:])
            one = answer(connection)
            connection.sendall(put(bucket, "/bkt/b") + BODY)
            two = answer(connection)
            connection.sendall(get(bucket, "/bkt/a"))
            return one, two, answer(connection)

    one, two, three = await in_thread(work)
    assert (one.status, two.status, three.status) == (200, 200, 200)
    assert MD5.encode() in one.head
    assert three.body == BODY
    assert await stored(bucket, "/bkt/b") == BODY


async def test_a_request_right_behind_the_body_is_not_part_of_it(bucket: S3) -> None:
    def work() -> tuple[Raw, Raw]:
        with connect(bucket.address) as connection:
            connection.sendall(put(bucket, "/bkt/a") + BODY + get(bucket, "/bkt/a"))
            return answer(connection), answer(connection)

    one, two = await in_thread(work)
    assert (one.status, two.status) == (200, 200)
    assert two.body == BODY


async def test_a_client_that_waits_for_100_gets_it_once(bucket: S3) -> None:
    def work() -> tuple[bytes, Raw]:
        with connect(bucket.address) as connection:
            connection.sendall(put(bucket, "/bkt/a", expect="100-continue"))
            first = connection.recv(100)
            connection.sendall(BODY)
            return first, answer(connection)

    first, found = await in_thread(work)
    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert found.status == 200
    assert await stored(bucket, "/bkt/a") == BODY


async def test_a_part_takes_the_same_way(bucket: S3) -> None:
    upload = (await bucket.call("POST", "/bkt/big", query=[("uploads", "")])).texts("UploadId")[0]
    query = [("partNumber", "1"), ("uploadId", upload)]
    found = await bucket.call("PUT", "/bkt/big", query=query, body=BODY)
    assert (found.status, found.headers["etag"]) == (200, f'"{MD5}"')


async def test_a_wrong_digest_is_told_on_a_connection_that_lives_on(bucket: S3) -> None:
    def work() -> tuple[Raw, Raw]:
        with connect(bucket.address) as connection:
            connection.sendall(put(bucket, "/bkt/a") + BODY[:-1] + bytes([BODY[-1] ^ 1]))
            one = answer(connection)
            connection.sendall(put(bucket, "/bkt/b") + BODY)
            return one, answer(connection)

    one, two = await in_thread(work)
    assert (one.status, one.code) == (400, "XAmzContentSHA256Mismatch")
    assert two.status == 200
    assert (await bucket.get("/bkt/a")).status == 404


async def test_a_body_that_breaks_off_leaves_nothing(bucket: S3) -> None:
    def work(how: int) -> Raw:
        with connect(bucket.address) as connection:
            connection.sendall(put(bucket, "/bkt/a") + BODY[:2_000_000])
            if how < 2:
                connection.shutdown(socket.SHUT_WR if how else socket.SHUT_RDWR)
            return answer(connection) if how == 1 else Raw(0, b"", b"")

    for how in range(3):
        assert (await in_thread(partial(work, how))).status in (0, 400)
    assert (await bucket.get("/bkt/a")).status == 404
    with trio.fail_after(30):
        while bucket.volume._holds:
            await trio.sleep(0.02)


async def test_a_body_that_stops_coming_is_given_up(bucket: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tonfs.s3shim.http.READ_TIMEOUT", 0.3)

    def work() -> Raw:
        with connect(bucket.address) as connection:
            connection.sendall(put(bucket, "/bkt/a") + BODY[:2_000_000])
            return answer(connection)

    found = await in_thread(work)
    assert (found.status, found.code) == (400, "RequestTimeout")
    assert b"Connection: close" in found.head


async def test_a_body_that_drips_is_given_up(bucket: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tonfs.s3shim.http.READ_TIMEOUT", 0.2)
    monkeypatch.setattr("tonfs.s3shim.http.CRAWL_AFTER", 0.0)
    monkeypatch.setattr("tonfs.s3shim.http.CRAWL_RATE", 1 << 40)

    def work() -> Raw:
        with connect(bucket.address) as connection:
            connection.sendall(put(bucket, "/bkt/a") + BODY[:BLOCK])
            return answer(connection)

    found = await in_thread(work)
    assert (found.status, found.code) == (400, "RequestTimeout")


async def test_a_disk_that_fails_in_the_middle_is_told_and_the_rest_is_not_read(
    bucket: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    poured = 0
    original = bucket.volume.pour

    def pour(staged: int, data: memoryview) -> None:
        nonlocal poured
        poured += len(data)
        if poured > 1_500_000:
            raise FsError("No space left on device.", errno.ENOSPC)
        original(staged, data)  # type: ignore[arg-type]

    monkeypatch.setattr(bucket.volume, "pour", pour)

    def work() -> Raw:
        with connect(bucket.address) as connection:
            connection.sendall(put(bucket, "/bkt/a", BODY * 5))
            try:
                connection.sendall(BODY * 5)
            except ConnectionError:
                return Raw(500, b"Connection: close", b"")
            return answer(connection)

    found = await in_thread(work)
    assert found.status not in (200, 201, 204)
    assert poured < 3 * len(BODY)
    assert (await bucket.get("/bkt/a")).status == 404


@contextmanager
def tls(address: str, authority: str) -> Iterator[socket.socket]:
    context = ssl.create_default_context(cafile=authority)
    with connect(address) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
        yield connection


async def test_over_tls(bucket: S3, tmp_path_factory: pytest.TempPathFactory) -> None:
    from scripts.interop.s3 import certificate

    pair = [str(path) for path in certificate(tmp_path_factory.mktemp("tls"))]

    def work(address: str) -> list[Raw]:
        with tls(address, pair[0]) as connection:
            found = []
            for name in "ab":
                headers = bucket.client.signed("PUT", f"/bkt/{name}", body=BODY) | {"content-length": str(len(BODY))}
                connection.sendall(head("PUT", f"/bkt/{name}", headers) + BODY)
                found.append(answer(connection))
            connection.sendall(get(bucket, "/bkt/a"))
            return [*found, answer(connection)]

    safety = Safety(tls_certificate=pair[0], tls_key=pair[1])
    async with trio.open_nursery() as nursery:
        start = partial(serve_s3, safety=safety)
        url: str = await nursery.start(start, bucket.volume, "127.0.0.1:0", "us-east-1", bucket.keys, bucket.fetch)
        address = url.removeprefix("https://")
        bucket.client.host, plain = address, bucket.client.host
        found = await in_thread(partial(work, address))
        bucket.client.host = plain
        nursery.cancel_scope.cancel()
    assert [one.status for one in found] == [200, 200, 200]
    assert found[2].body == BODY
    assert await stored(bucket, "/bkt/b") == BODY
