"""The door over TLS: boto3's default uploads with trailers, and what plain HTTP is told there."""

from __future__ import annotations

import ssl
import warnings
from functools import partial

import boto3
import pytest
import trio

from tests.s3.conftest import S3, in_thread
from tests.s3.raw import connect
from tonfs.s3shim.app import serve_s3
from tonfs.s3shim.listen import Safety


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for 127.0.0.1 and its key."""
    from scripts.interop.s3 import certificate

    found = certificate(tmp_path_factory.mktemp("tls"))
    return str(found[0]), str(found[1])


async def test_stock_uploads_over_tls_and_nothing_in_the_clear(s3: S3, pair: tuple[str, str]) -> None:
    def work(url: str) -> None:
        words = {"aws_access_key_id": s3.client.access_key, "aws_secret_access_key": s3.client.secret_key}
        client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", verify=pair[0], **words)
        client.create_bucket(Bucket="bkt")
        client.put_object(Bucket="bkt", Key="k", Body=b"over tls" * 9999)
        got = client.get_object(Bucket="bkt", Key="k", ChecksumMode="ENABLED")
        assert got["Body"].read() == b"over tls" * 9999
        assert got["ChecksumCRC32"]

    def old_tls(address: str) -> None:
        context = ssl.create_default_context(cafile=pair[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with connect(address) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(plain, server_hostname="127.0.0.1")

    def in_the_clear(address: str) -> bytes:
        with connect(address) as plain:
            plain.sendall(b"GET /bkt/k HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                return plain.recv(4096)
            except ConnectionError:
                return b""

    safety = Safety(tls_certificate=pair[0], tls_key=pair[1])
    async with trio.open_nursery() as nursery:
        start = partial(serve_s3, safety=safety)
        url: str = await nursery.start(start, s3.volume, "127.0.0.1:0", "us-east-1", s3.keys, s3.fetch)
        assert url.startswith("https://")
        await in_thread(partial(work, url))
        address = url.removeprefix("https://")
        assert b"200" not in await in_thread(partial(in_the_clear, address))
        await in_thread(partial(old_tls, address))
        nursery.cancel_scope.cancel()


async def test_health_is_told_to_anybody_and_says_nothing_more(s3: S3) -> None:
    send = partial(s3.client.send, "GET", "/.health", {"host": s3.address})
    found = await in_thread(send)
    assert (found.status, found.body) == (200, b"ok\n")
    assert (await s3.put("/.health")).status == 400
