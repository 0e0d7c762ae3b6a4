"""Who may do what: attacks on authentication over real HTTP. Whatever is refused changes nothing."""

from __future__ import annotations

import hashlib
import time
from functools import partial

import pytest

from tests.s3.conftest import S3, in_thread
from tests.s3.signer import Client
from tonfs.s3shim.keys import Rights


@pytest.fixture
async def bucket(s3: S3) -> S3:
    assert (await s3.put("/bkt")).status == 200
    assert (await s3.put("/bkt/k", b"original")).status == 200
    return s3


async def untouched(s3: S3) -> None:
    answer = await s3.get("/bkt/k")
    assert (answer.status, answer.body) == (200, b"original")


async def attempt(client: Client, *args: object, **kwargs: object) -> tuple[int, str]:
    answer = await in_thread(partial(client.request, *args, **kwargs))  # type: ignore[arg-type]
    assert b"Traceback" not in answer.body
    assert b"/tmp/" not in answer.body
    assert client.secret_key.encode() not in answer.body
    return answer.status, answer.code


async def test_anonymous_requests_are_refused_with_access_denied(bucket: S3) -> None:
    for method, target in (("GET", "/"), ("GET", "/bkt"), ("GET", "/bkt/k"), ("PUT", "/bkt/k"), ("DELETE", "/bkt/k")):
        answer = await in_thread(
            partial(bucket.client.send, method, target, {"host": bucket.address}, b"x" if method == "PUT" else b"")
        )
        assert (answer.status, answer.code) == (403, "AccessDenied")
        assert answer.headers["content-type"] == "application/xml"
        assert answer.headers["x-amz-request-id"]
        assert "access-control-allow-origin" not in answer.headers
    await untouched(bucket)


async def test_unknown_keys_and_wrong_secrets_are_refused(bucket: S3) -> None:
    good = bucket.client
    stranger = Client(bucket.address, "TFNOBODY", good.secret_key)
    forger = Client(bucket.address, good.access_key, good.secret_key + "x")
    assert await attempt(stranger, "GET", "/bkt/k") == (403, "InvalidAccessKeyId")
    assert await attempt(forger, "PUT", "/bkt/k", body=b"forged") == (403, "SignatureDoesNotMatch")
    await untouched(bucket)


async def test_a_revoked_key_stops_at_once(bucket: S3) -> None:
    second = bucket.new_client()
    assert (await attempt(second, "GET", "/bkt/k"))[0] == 200
    bucket.keys.revoke(second.access_key)
    assert await attempt(second, "GET", "/bkt/k") == (403, "InvalidAccessKeyId")


@pytest.mark.parametrize(("minutes", "status"), [(-14, 200), (14, 200), (-16, 403), (16, 403)])
async def test_a_clock_may_be_fourteen_minutes_off_but_not_sixteen(bucket: S3, minutes: int, status: int) -> None:
    client = Client(bucket.address, bucket.client.access_key, bucket.client.secret_key, now=time.time() + 60 * minutes)
    assert await attempt(client, "GET", "/bkt/k") == (status, "RequestTimeTooSkewed" if status == 403 else "")


async def test_region_service_and_scope_date_must_be_right(bucket: S3) -> None:
    names = {"access_key": bucket.client.access_key, "secret_key": bucket.client.secret_key}
    for client in (
        Client(bucket.address, **names, region="eu-west-1"),
        Client(bucket.address, **names, service="ec2"),
        Client(bucket.address, **names, tweak={"scope_date": "20200101"}),
    ):
        assert await attempt(client, "GET", "/bkt/k") == (400, "AuthorizationHeaderMalformed")


async def test_signed_headers_must_cover_host_and_every_amz_header(bucket: S3) -> None:
    names = {"access_key": bucket.client.access_key, "secret_key": bucket.client.secret_key}
    hostless = Client(bucket.address, **names, tweak={"signed_headers": "x-amz-content-sha256;x-amz-date"})
    assert (await attempt(hostless, "GET", "/bkt/k"))[0] == 400
    for header in ("x-amz-meta-a", "x-amz-acl", "x-amz-copy-source", "x-amz-tagging"):
        found = await attempt(bucket.client, "PUT", "/bkt/k", body=b"new", unsigned={header: "v"})
        assert found == (403, "AccessDenied")
    await untouched(bucket)


async def test_the_body_must_be_the_one_that_was_signed(bucket: S3) -> None:
    sent = bucket.client.signed("PUT", "/bkt/k", body=b"what was signed")
    answer = await in_thread(partial(bucket.client.send, "PUT", "/bkt/k", sent, b"what was put in"))
    assert (answer.status, answer.code) == (400, "XAmzContentSHA256Mismatch")
    for payload in ("", "nonsense", "0" * 63, "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"):
        assert (await attempt(bucket.client, "PUT", "/bkt/k", body=b"x", payload=payload))[0] in (400, 501)
    del sent["x-amz-content-sha256"]
    answer = await in_thread(partial(bucket.client.send, "PUT", "/bkt/k", sent, b"what was signed"))
    assert answer.status in (400, 403)
    await untouched(bucket)


async def test_an_unsigned_payload_is_taken_on_loopback(bucket: S3) -> None:
    assert (await attempt(bucket.client, "PUT", "/bkt/u", body=b"x", payload="UNSIGNED-PAYLOAD"))[0] == 200


async def test_presigned_urls_open_one_thing_for_a_while(bucket: S3) -> None:
    client = bucket.client

    async def use(method: str, target: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
        sent = {"host": bucket.address} | {k.replace("_", "-"): v for k, v in headers.items()}
        answer = await in_thread(partial(client.send, method, target, sent, body))
        return answer.status, answer.code

    url = client.presign("GET", "/bkt/k")
    assert await use("GET", url) == (200, "")
    assert await use("GET", url) == (200, "")
    for method in ("PUT", "DELETE"):
        assert await use(method, url, b"evil" if method == "PUT" else b"") == (403, "SignatureDoesNotMatch")
    assert await use("GET", url.replace("/bkt/k", "/bkt/j")) == (403, "SignatureDoesNotMatch")
    assert await use("GET", url + "&acl") == (403, "SignatureDoesNotMatch")
    assert await use("GET", url + "&X-Amz-Signature=" + "0" * 64) == (400, "InvalidArgument")
    header = client.signed("GET", "/bkt/k")
    assert (await use("GET", url, authorization=header["authorization"])) == (400, "InvalidArgument")
    for expires in ("0", "-1", "604801"):
        assert await use("GET", client.presign("GET", "/bkt/k", expires)) == (403, "AccessDenied")
    for expires in ("99999999999999999999", "text", ""):
        assert await use("GET", client.presign("GET", "/bkt/k", expires)) == (400, "AuthorizationQueryParametersError")
    late = Client(client.host, client.access_key, client.secret_key, now=time.time() - 120)
    assert await use("GET", late.presign("GET", "/bkt/k", "60")) == (403, "AccessDenied")
    early = Client(client.host, client.access_key, client.secret_key, now=time.time() + 1000)
    assert await use("GET", early.presign("GET", "/bkt/k")) == (403, "AccessDenied")
    put = client.presign("PUT", "/bkt/k")
    assert await use("PUT", put, b"x", x_amz_copy_source="/bkt/secret") == (403, "AccessDenied")
    await untouched(bucket)
    assert await use("PUT", put, b"by url") == (200, "")
    assert (await bucket.get("/bkt/k")).body == b"by url"


async def test_a_url_of_version_two_reads_and_everything_else_of_it_is_refused(bucket: S3) -> None:
    import boto3
    from botocore.config import Config

    def old_url(method: str) -> str:
        words = {"aws_access_key_id": bucket.client.access_key, "aws_secret_access_key": bucket.client.secret_key}
        config = Config(signature_version="s3", s3={"addressing_style": "path"})
        old = boto3.client("s3", endpoint_url=bucket.url, region_name="us-east-1", config=config, **words)
        made: str = old.generate_presigned_url(method, {"Bucket": "bkt", "Key": "k"})
        return made.removeprefix(bucket.url)

    sent = {"host": bucket.address}
    url = await in_thread(partial(old_url, "get_object"))
    assert "AWSAccessKeyId" in url
    got = await in_thread(partial(bucket.client.send, "GET", url, sent))
    assert (got.status, got.body) == (200, b"original")
    put = await in_thread(partial(old_url, "put_object"))
    header = {"authorization": f"AWS {bucket.client.access_key}:abc"}
    for method, target, headers in (("PUT", put, {}), ("DELETE", url, {}), ("GET", "/bkt/k", header)):
        answer = await in_thread(partial(bucket.client.send, method, target, sent | headers))
        assert (answer.status, answer.code) == (400, "InvalidRequest")
        assert b"s3v4" in answer.body
    await untouched(bucket)


async def test_a_public_bucket_is_read_by_anybody_and_nothing_more(bucket: S3) -> None:
    async def anonymous(method: str, target: str, body: bytes = b"") -> tuple[int, str]:
        answer = await in_thread(partial(bucket.client.send, method, target, {"host": bucket.address}, body))
        return answer.status, answer.code

    await bucket.put("/other")
    assert await anonymous("GET", "/bkt/k") == (403, "AccessDenied")
    bucket.keys.set_public("bkt", True)
    assert await anonymous("GET", "/bkt/k") == (200, "")
    assert (await anonymous("HEAD", "/bkt/k"))[0] == 200
    assert await anonymous("GET", "/bkt?list-type=2") == (200, "")
    assert await anonymous("GET", "/bkt/k?response-content-type=text/html") == (400, "InvalidRequest")
    refused = [("PUT", "/bkt/k"), ("DELETE", "/bkt/k"), ("DELETE", "/bkt"), ("GET", "/other"), ("GET", "/")]
    refused += [
        ("GET", f"/bkt{word}") for word in ("?acl", "?tagging", "?location", "?uploads", "/k?acl", "/k?tagging")
    ]
    for method, target in [*refused, ("GET", "/absent/k"), ("POST", "/bkt?delete"), ("PUT", "/bkt/k?tagging")]:
        assert await anonymous(method, target) == (403, "AccessDenied")
    bucket.keys.set_public("bkt", False)
    assert await anonymous("GET", "/bkt/k") == (403, "AccessDenied")
    await untouched(bucket)


async def test_a_key_does_only_what_its_rights_say(bucket: S3) -> None:
    await bucket.put("/other")
    reader = bucket.new_client("bkt", Rights.READ)
    writer = bucket.new_client("bkt", Rights.WRITE)
    for client in (reader, writer):
        assert (await attempt(client, "GET", "/bkt/k"))[0] == 200
        assert (await attempt(client, "GET", "/bkt"))[0] == 200
        assert (await attempt(client, "HEAD", "/bkt/k"))[0] == 200
        for method, target in (("GET", "/other"), ("PUT", "/other/k"), ("PUT", "/third"), ("DELETE", "/bkt")):
            assert await attempt(client, method, target) == (403, "AccessDenied")
    for method in ("PUT", "DELETE"):
        assert await attempt(reader, method, "/bkt/k") == (403, "AccessDenied")
    answer = await in_thread(partial(reader.request, "GET", "/"))
    assert answer.texts("Name") == ["bkt"]
    assert (await attempt(writer, "PUT", "/bkt/w", body=b"w"))[0] == 200
    assert (await attempt(writer, "DELETE", "/bkt/w"))[0] == 204
    await untouched(bucket)


async def test_expect_is_answered_only_after_authentication(bucket: S3) -> None:
    import socket

    def talk(headers: dict[str, str]) -> bytes:
        host, _, port = bucket.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            lines = [f"{name}: {value}" for name, value in headers.items()]
            connection.sendall(("PUT /bkt/k HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode())
            return connection.recv(4096)

    body = b"expected"
    extra = {"expect": "100-continue", "content-length": str(len(body))}
    sent = bucket.client.signed("PUT", "/bkt/k", body=body) | extra
    assert (await in_thread(partial(talk, sent))).startswith(b"HTTP/1.1 100 ")
    forged = sent | {"authorization": sent["authorization"][:-1] + "x"}
    assert (await in_thread(partial(talk, forged))).startswith(b"HTTP/1.1 403 ")
    anonymous = {"host": bucket.address} | extra
    assert (await in_thread(partial(talk, anonymous))).startswith(b"HTTP/1.1 403 ")
    too_long = bucket.client.signed("PUT", "/bkt/k", payload="UNSIGNED-PAYLOAD")
    too_long |= extra | {"content-length": str((5 << 30) + 1)}
    assert (await in_thread(partial(talk, too_long))).startswith(b"HTTP/1.1 400 ")
    await untouched(bucket)


async def test_digests_that_do_not_match_leave_the_old_object(bucket: S3) -> None:
    import base64

    wrong = {
        "content-md5": base64.b64encode(hashlib.md5(b"other").digest()).decode(),
        "x-amz-checksum-crc32": "AAAAAA==",
        "x-amz-checksum-crc32c": "AAAAAA==",
        "x-amz-checksum-crc64nvme": "AAAAAAAAAAA=",
        "x-amz-checksum-sha1": base64.b64encode(bytes(20)).decode(),
        "x-amz-checksum-sha256": base64.b64encode(bytes(32)).decode(),
    }
    for name, value in wrong.items():
        assert await attempt(bucket.client, "PUT", "/bkt/k", headers={name: value}, body=b"new") == (400, "BadDigest")
        status, code = await attempt(bucket.client, "PUT", "/bkt/k", headers={name: "malformed"}, body=b"new")
        assert (status, code) in ((400, "InvalidDigest"), (400, "BadDigest"))
    await untouched(bucket)
