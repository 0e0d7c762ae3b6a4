"""Objects over HTTP: bodies of every kind, ranges, conditions, metadata, keys, lists, refusals."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import socket
import zlib
from functools import partial
from typing import Any
from urllib.parse import unquote

import pytest
import trio

from tests.s3.conftest import S3, in_thread
from tests.s3.signer import Response

BODY = bytes(range(256)) * 1024


@pytest.fixture
async def bucket(s3: S3) -> S3:
    assert (await s3.put("/bkt")).status == 200
    return s3


def md5(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


# Bodies.


def signed_chunks(s3: S3, path: str, pieces: list[bytes], *, trailer: str = "", spoil: int = -1) -> tuple[Any, bytes]:
    """(headers, body) of an aws-chunked upload with signed chunks; `spoil` is the chunk whose signature is wrong."""
    client = s3.client
    kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if trailer else "")
    length = str(sum(map(len, pieces)))
    headers = {"x-amz-decoded-content-length": length, "content-encoding": "aws-chunked"}
    if trailer:
        headers["x-amz-trailer"] = "x-amz-checksum-crc32"
    sent = client.signed("PUT", path, headers=headers, payload=kind)
    date = sent["x-amz-date"]
    key = client.signing_key(date)
    previous = sent["authorization"].rpartition("=")[2]
    empty = hashlib.sha256(b"").hexdigest()

    def sign(kind: str, *rest: str) -> str:
        text = "\n".join((f"AWS4-HMAC-SHA256-{kind}", date, client.scope(date), previous, *rest))
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    body = b""
    for number, piece in enumerate([*pieces, b""]):
        previous = sign("PAYLOAD", empty, hashlib.sha256(piece).hexdigest())
        shown = "0" * 64 if number == spoil else previous
        body += f"{len(piece):x};chunk-signature={shown}\r\n".encode() + piece + (b"\r\n" if piece else b"")
    if trailer:
        digest = hashlib.sha256(f"x-amz-checksum-crc32:{trailer}\n".encode()).hexdigest()
        body += f"x-amz-checksum-crc32:{trailer}\r\nx-amz-trailer-signature:{sign('TRAILER', digest)}\r\n".encode()
    return sent, body + b"\r\n"


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


async def test_signed_chunks_with_and_without_a_trailer(bucket: S3) -> None:
    pieces = [BODY[:65536], BODY[65536:131072], BODY[131072:]]
    for trailer in ("", crc32(BODY)):
        sent, body = signed_chunks(bucket, "/bkt/k", pieces, trailer=trailer)
        answer = await in_thread(partial(bucket.client.send, "PUT", "/bkt/k", sent, body))
        assert answer.status == 200, answer.body
        got = await bucket.get("/bkt/k")
        assert got.body == BODY
        assert "content-encoding" not in got.headers


async def test_a_bad_chunk_or_trailer_leaves_the_old_object(bucket: S3) -> None:
    await bucket.put("/bkt/k", b"old")
    pieces = [BODY[:65536], BODY[65536:131072], BODY[131072:]]
    for spoil, trailer in ((0, ""), (1, ""), (2, ""), (3, ""), (-1, crc32(b"other"))):
        sent, body = signed_chunks(bucket, "/bkt/k", pieces, spoil=spoil, trailer=trailer)
        answer = await in_thread(partial(bucket.client.send, "PUT", "/bkt/k", sent, body))
        assert (answer.status, answer.code) in ((403, "SignatureDoesNotMatch"), (400, "BadDigest"))
        assert (await bucket.get("/bkt/k")).body == b"old"


def unsigned_trailer(s3: S3, path: str, data: bytes, checksum: str, step: int = 65536) -> tuple[dict[str, str], bytes]:
    headers = {
        "x-amz-decoded-content-length": str(len(data)),
        "content-encoding": "aws-chunked",
        "x-amz-trailer": "x-amz-checksum-crc32",
        "x-amz-sdk-checksum-algorithm": "CRC32",
    }
    sent = s3.client.signed("PUT", path, headers=headers, payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER")
    framed = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (data[i : i + step] for i in range(0, len(data), step)))
    return sent, framed + b"0\r\nx-amz-checksum-crc32:" + checksum.encode() + b"\r\n\r\n"


async def test_an_unsigned_trailer_inside_chunked_transfer_encoding_not_aligned(bucket: S3) -> None:
    sent, body = unsigned_trailer(bucket, "/bkt/k", BODY, crc32(BODY))
    framed = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[i : i + 1000] for i in range(0, len(body), 1000)))
    answer = await in_thread(
        partial(bucket.client.send, "PUT", "/bkt/k", sent | {"transfer-encoding": "chunked"}, framed + b"0\r\n\r\n")
    )
    assert answer.status == 200, answer.body
    assert answer.headers["x-amz-checksum-crc32"] == crc32(BODY)
    assert (await bucket.get("/bkt/k")).body == BODY
    sent, body = unsigned_trailer(bucket, "/bkt/k", b"other", crc32(BODY))
    answer = await in_thread(partial(bucket.client.send, "PUT", "/bkt/k", sent, body))
    assert (answer.status, answer.code) == (400, "BadDigest")
    assert (await bucket.get("/bkt/k")).body == BODY


def _staged(s3: S3) -> int:
    with s3.volume.lock:
        count: int = s3.volume.db.execute("SELECT count(*) FROM inode WHERE nlink = 0").fetchone()[0]
    return count


async def test_a_connection_that_breaks_leaves_the_old_object_and_nothing_behind(bucket: S3) -> None:
    await bucket.put("/bkt/k", b"old")
    sent = bucket.client.signed("PUT", "/bkt/k", body=BODY) | {"content-length": str(len(BODY))}

    def cut() -> None:
        host, _, port = bucket.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            lines = "\r\n".join(f"{name}: {value}" for name, value in sent.items())
            connection.sendall(f"PUT /bkt/k HTTP/1.1\r\n{lines}\r\n\r\n".encode() + BODY[:100_000])

    await in_thread(cut)
    with trio.fail_after(20):
        while _staged(bucket):
            await trio.sleep(0.05)
    assert (await bucket.get("/bkt/k")).body == b"old"


async def test_lengths_that_are_missing_wrong_or_too_large_are_refused(bucket: S3) -> None:
    client = bucket.client

    def send(headers: dict[str, str], body: bytes) -> Response:
        connection = http.client.HTTPConnection(bucket.address, timeout=20)
        connection.putrequest("PUT", "/bkt/k", skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        try:
            connection.endheaders(body)
            answer = connection.getresponse()
            return Response(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    plain = client.signed("PUT", "/bkt/k", payload="UNSIGNED-PAYLOAD")
    assert (await in_thread(partial(send, plain, b""))).code == "MissingContentLength"
    huge = plain | {"content-length": str((5 << 30) + 1), "connection": "close"}
    assert (await in_thread(partial(send, huge, b""))).code == "EntityTooLarge"
    for length in ("-1", "1e1", "+3", "0x3"):
        assert (await in_thread(partial(send, plain | {"content-length": length}, b"abc"))).status == 400
    for decoded in (None, "-1", "x", "4"):
        headers = {} if decoded is None else {"x-amz-decoded-content-length": decoded}
        sent = client.signed("PUT", "/bkt/k", headers=headers, payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER")
        answer = await in_thread(partial(client.send, "PUT", "/bkt/k", sent, b"3\r\nabc\r\n0\r\n\r\n"))
        assert answer.status in (400, 411)
    assert (await bucket.get("/bkt/k")).code == "NoSuchKey"


async def test_plain_data_may_come_in_chunks_of_http(bucket: S3) -> None:
    sent = bucket.client.signed("PUT", "/bkt/k", payload="UNSIGNED-PAYLOAD") | {"transfer-encoding": "chunked"}
    answer = await in_thread(partial(bucket.client.send, "PUT", "/bkt/k", sent, b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"))
    assert answer.status == 200
    assert (await bucket.get("/bkt/k")).body == b"abcd"
    exact = bucket.client.signed("PUT", "/bkt/k", payload=hashlib.sha256(b"other").hexdigest())
    wrong = await in_thread(
        partial(bucket.client.send, "PUT", "/bkt/k", exact | {"transfer-encoding": "chunked"}, b"1\r\nx\r\n0\r\n\r\n")
    )
    assert wrong.code == "XAmzContentSHA256Mismatch"
    assert (await bucket.get("/bkt/k")).body == b"abcd"


# Reading.


async def test_etag_metadata_and_headers_come_back_and_are_replaced_as_a_whole(bucket: S3) -> None:
    answer = await bucket.put(
        "/bkt/k",
        b"one",
        content_type="text/plain",
        cache_control="no-cache",
        content_encoding="gzip",
        x_amz_meta_Colour="blau ü",
        x_amz_meta_empty="",
    )
    assert answer.headers["etag"] == md5(b"one")
    for method in ("GET", "HEAD"):
        got = await bucket.call(method, "/bkt/k")
        assert got.status == 200
        assert got.headers["etag"] == md5(b"one")
        assert got.headers["content-type"] == "text/plain"
        assert got.headers["content-encoding"] == "gzip"
        assert got.headers["cache-control"] == "no-cache"
        assert got.headers["x-amz-meta-colour"].encode("latin-1").decode() == "blau ü"
        assert got.headers["x-amz-meta-empty"] == ""
        assert got.headers["content-length"] == "3"
        assert got.headers["accept-ranges"] == "bytes"
        assert got.headers["server"] == "tonfs"
        assert got.body == (b"one" if method == "GET" else b"")
    await bucket.put("/bkt/k", b"two", x_amz_meta_other="x")
    got = await bucket.get("/bkt/k")
    assert got.headers["x-amz-meta-other"] == "x"
    assert "x-amz-meta-colour" not in got.headers
    assert got.headers["content-type"] == "binary/octet-stream"
    assert "content-encoding" not in got.headers


async def test_checksums_come_with_the_whole_object_only(bucket: S3) -> None:
    await bucket.put("/bkt/k", BODY, x_amz_checksum_crc32=crc32(BODY))
    whole = await bucket.get("/bkt/k", x_amz_checksum_mode="ENABLED")
    assert whole.headers["x-amz-checksum-crc32"] == crc32(BODY)
    assert whole.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    part = await bucket.get("/bkt/k", x_amz_checksum_mode="ENABLED", range="bytes=0-9")
    assert "x-amz-checksum-crc32" not in part.headers
    assert "x-amz-checksum-crc32" not in (await bucket.get("/bkt/k")).headers


async def test_ranges(bucket: S3) -> None:
    await bucket.put("/bkt/k", BODY)
    for text, first, end in (("0-0", 0, 1), ("100-", 100, len(BODY)), ("-7", len(BODY) - 7, len(BODY))):
        got = await bucket.get("/bkt/k", range=f"bytes={text}")
        assert got.status == 206
        assert got.body == BODY[first:end]
        assert got.headers["content-range"] == f"bytes {first}-{end - 1}/{len(BODY)}"
        assert got.headers["content-length"] == str(end - first)
    small = await bucket.get("/bkt/k", range="bytes=0-52428799")
    assert (small.status, small.body) == (206, BODY)
    for text in ("bytes=9-5", "bytes=0-1,5-6", "bytes=" + "0-1," * 500, "nonsense"):
        got = await bucket.get("/bkt/k", range=text)
        assert (got.status, got.body) == (200, BODY)
    past = await bucket.get("/bkt/k", range=f"bytes={len(BODY)}-")
    assert (past.status, past.code) == (416, "InvalidRange")
    assert past.headers["content-range"] == f"bytes */{len(BODY)}"
    await bucket.put("/bkt/empty")
    assert (await bucket.get("/bkt/empty", range="bytes=0-")).status == 416
    head = await bucket.call("HEAD", "/bkt/k", headers={"range": "bytes=0-9"})
    assert (head.status, head.headers["content-length"]) == (206, "10")


async def test_conditional_reads(bucket: S3) -> None:
    put = await bucket.put("/bkt/k", b"x")
    etag = put.headers["etag"]
    date = (await bucket.call("HEAD", "/bkt/k")).headers["last-modified"]
    assert (await bucket.get("/bkt/k", if_match=etag)).status == 200
    assert (await bucket.get("/bkt/k", if_match='"no"')).code == "PreconditionFailed"
    for condition in ({"if_none_match": etag}, {"if_none_match": "*"}, {"if_modified_since": date}):
        answer = await bucket.get("/bkt/k", **condition)
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["etag"] == etag
    assert (await bucket.get("/bkt/k", if_unmodified_since="Mon, 01 Jan 2001 00:00:00 GMT")).status == 412
    assert (await bucket.get("/bkt/k", range="bytes=0-0", if_range='"no"')).status == 200


async def test_conditional_writes_and_deletes(bucket: S3) -> None:
    first = await bucket.put("/bkt/k", b"1", if_none_match="*")
    assert first.status == 200
    assert (await bucket.put("/bkt/k", b"2", if_none_match="*")).code == "PreconditionFailed"
    assert (await bucket.put("/bkt/k", b"2", if_match='"no"')).code == "PreconditionFailed"
    assert (await bucket.put("/bkt/k", b"2", if_match=first.headers["etag"])).status == 200
    assert (await bucket.put("/bkt/k", b"3", if_match=first.headers["etag"])).code == "PreconditionFailed"
    assert (await bucket.put("/bkt/new", b"3", if_match="*")).code == "NoSuchKey"
    assert (await bucket.put("/bkt/k", b"3", if_none_match='"x"')).status == 200
    assert (await bucket.put("/bkt/k", b"2", if_none_match=md5(b"3"))).code == "PreconditionFailed"
    assert (await bucket.put("/bkt/k", b"2", if_match="*")).status == 200
    assert (await bucket.call("DELETE", "/bkt/k", headers={"if-match": '"no"'})).code == "PreconditionFailed"
    assert (await bucket.get("/bkt/k")).body == b"2"
    assert (await bucket.call("DELETE", "/bkt/k", headers={"if-match": md5(b"2")})).status == 204
    assert (await bucket.get("/bkt/k")).code == "NoSuchKey"


async def test_of_many_conditional_creates_one_wins(bucket: S3) -> None:
    answers: list[int] = []

    async def create(number: int) -> None:
        answers.append((await bucket.put("/bkt/once", b"%d" % number, if_none_match="*")).status)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(create, number)
    assert sorted(answers) == [200] + [412] * 7


async def test_the_answer_can_be_given_other_headers(bucket: S3) -> None:
    await bucket.put("/bkt/k", b"x", cache_control="no-cache")
    query = [("response-content-type", "text/x"), ("response-cache-control", "max-age=1")]
    got = await bucket.call("GET", "/bkt/k", query)
    assert (got.headers["content-type"], got.headers["cache-control"]) == ("text/x", "max-age=1")
    evil = await bucket.call("GET", "/bkt/k", [("response-content-type", "a\r\nSet-Cookie: x")])
    assert (evil.status, evil.code) == (400, "InvalidArgument")


async def test_a_reader_gets_the_old_or_the_new_object_whole(bucket: S3) -> None:
    versions = [bytes([number]) * 3_000_000 for number in range(1, 4)]
    await bucket.put("/bkt/k", versions[0])
    seen: set[bytes] = set()

    async def read() -> None:
        for _ in range(6):
            got = await bucket.get("/bkt/k")
            assert got.status == 200
            assert got.body in versions
            assert got.headers["etag"] == md5(got.body)
            seen.add(got.body[:1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(read)
        for version in versions[1:] * 2:
            assert (await bucket.put("/bkt/k", version)).status == 200
    assert len(seen) >= 1


# Keys and buckets.

HARD_KEYS = [
    "plain",
    "with space",
    "plus+plus",
    "percent%41%2F",
    "tilde~-_.",
    "!'()*,;=:@&$",
    "ünïcödé/日本語/🎉",
    "e\u0301 and \u00e9",
    "quotes\"'<>&",
    "back\\slash\\..\\x",
    "new\nline\ttab",
    "bell\x07",
    "...",
    "a/...b/c",
    "trailing.",
    "x" * 255,
    "/".join(["d" * 100] * 10),
]


@pytest.mark.parametrize("key", HARD_KEYS)
async def test_awkward_keys_are_stored_listed_and_deleted_as_they_are(bucket: S3, key: str) -> None:
    body = key.encode()
    assert (await bucket.call("PUT", "/bkt", key=key, body=body)).status == 200
    got = await bucket.call("GET", "/bkt", key=key)
    assert (got.status, got.body) == (200, body)
    encoded = await bucket.call("GET", "/bkt", [("list-type", "2"), ("encoding-type", "url")])
    assert [unquote(text) for text in encoded.texts("Key")] == [key]
    assert (await bucket.call("DELETE", "/bkt", key=key)).status == 204
    assert bucket.volume.is_empty(_inode(bucket, b"bkt"))


def _inode(s3: S3, *parts: bytes) -> Any:
    return s3.volume.resolve(parts).inode


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("/bkt//a", "InvalidArgument"),
        ("/bkt/a//b", "InvalidArgument"),
        ("/bkt/..", "InvalidArgument"),
        ("/bkt/../other/k", "InvalidArgument"),
        ("/bkt/%2e%2e/other/k", "InvalidArgument"),
        ("/bkt/a%2f..%2f..%2fother", "InvalidArgument"),
        ("/bkt/.", "InvalidArgument"),
        ("/bkt/a%00b", "InvalidArgument"),
        ("/bkt/%ff", "InvalidArgument"),
        ("/bkt/%c0%ae%c0%ae/x", "InvalidArgument"),
        ("/bkt/%zz", "InvalidURI"),
        ("/bkt/" + "a" * 256, "KeyTooLongError"),
        ("/bkt/" + "a/" * 512 + "a", "KeyTooLongError"),
    ],
)
async def test_keys_that_cannot_be_files_are_refused_on_every_verb(bucket: S3, raw: str, code: str) -> None:
    for method in ("PUT", "GET", "DELETE", "HEAD"):
        sent = bucket.client.signed(method, raw, body=b"x" if method == "PUT" else b"")
        answer = await in_thread(partial(bucket.client.send, method, raw, sent, b"x" if method == "PUT" else b""))
        assert answer.status == 400
        if method != "HEAD":
            assert answer.code == code
    assert bucket.volume.is_empty(_inode(bucket, b"bkt"))


async def test_an_object_and_keys_below_it_live_side_by_side(bucket: S3) -> None:
    bodies = {"a": b"file", "a/b": b"x", "a/b/c": b"y", "a/": b"inside", "d/e": b"z", "d": b"later"}
    for key, body in bodies.items():
        assert (await bucket.put(f"/bkt/{key}", body, x_amz_meta_k=key)).status == 200
    listed = await bucket.call("GET", "/bkt", [("list-type", "2")])
    assert listed.texts("Key") == sorted(bodies)
    assert listed.texts("Size") == [str(len(bodies[key])) for key in sorted(bodies)]
    for key, body in bodies.items():
        got = await bucket.get(f"/bkt/{key}")
        assert (got.body, got.headers["etag"], got.headers["x-amz-meta-k"]) == (body, md5(body), key)
    grouped = await bucket.call("GET", "/bkt", [("list-type", "2"), ("delimiter", "/")])
    assert (grouped.texts("Key"), grouped.texts("Prefix")[1:]) == (["a", "d"], ["a/", "d/"])
    for key in bodies:
        assert (await bucket.call("DELETE", f"/bkt/{key}")).status == 204
    assert bucket.volume.is_empty(_inode(bucket, b"bkt"))


async def test_directory_markers(bucket: S3) -> None:
    put = await bucket.put("/bkt/dir/", content_type="application/x-directory", x_amz_meta_mode="493")
    assert put.headers["etag"] == md5(b"")
    head = await bucket.call("HEAD", "/bkt/dir/")
    assert head.status == 200
    assert head.headers["content-length"] == "0"
    assert head.headers["x-amz-meta-mode"] == "493"
    assert (await bucket.call("HEAD", "/bkt/dir")).status == 404
    assert (await bucket.put("/bkt/dir/", b"data")).status == 200
    assert (await bucket.get("/bkt/dir/")).body == b"data"
    await bucket.put("/bkt/dir/below", b"x")
    listed = await bucket.call("GET", "/bkt", [("list-type", "2")])
    assert listed.texts("Key") == ["dir/", "dir/below"]
    assert (await bucket.call("DELETE", "/bkt/dir")).status == 204
    assert (await bucket.call("DELETE", "/bkt/dir/below")).status == 204
    assert (await bucket.call("HEAD", "/bkt/dir/")).status == 200
    assert (await bucket.call("DELETE", "/bkt/dir/")).status == 204
    assert (await bucket.call("HEAD", "/bkt/dir/")).status == 404


async def test_directories_that_keys_implied_vanish_with_the_last_key(bucket: S3) -> None:
    await bucket.put("/bkt/a/b/c", b"x")
    assert (await bucket.call("HEAD", "/bkt/a/b/")).status == 404
    await bucket.call("DELETE", "/bkt/a/b/c")
    assert bucket.volume.is_empty(_inode(bucket, b"bkt"))


async def test_buckets(bucket: S3) -> None:
    await bucket.put("/bkt/k", b"kept")
    assert (await bucket.put("/bkt")).status == 200, "as S3 does in its first region"
    assert (await bucket.get("/bkt/k")).body == b"kept"
    for bad in ("/ab", "/Upper", "/under_score", "/a..b", "/192.168.0.1", "/%2e%2e%2e", "/xn--abc"):
        assert (await bucket.put(bad)).code == "InvalidBucketName"
    assert (await bucket.get("/absent")).code == "NoSuchBucket"
    assert (await bucket.get("/absent/k")).code == "NoSuchBucket"
    assert (await bucket.put("/absent/k", b"x")).code == "NoSuchBucket"
    assert (await bucket.call("DELETE", "/absent/k")).code == "NoSuchBucket"
    head = await bucket.call("HEAD", "/bkt")
    assert (head.status, head.headers["x-amz-bucket-region"]) == (200, "us-east-1")
    assert (await bucket.call("HEAD", "/absent")).status == 404
    await bucket.put("/bkt/k", b"x")
    assert (await bucket.call("DELETE", "/bkt")).code == "BucketNotEmpty"
    await bucket.call("DELETE", "/bkt/k")
    assert (await bucket.call("DELETE", "/bkt")).status == 204
    assert (await bucket.call("DELETE", "/bkt")).code == "NoSuchBucket"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (
            b"<CreateBucketConfiguration><LocationConstraint>us-east-1</LocationConstraint></CreateBucketConfiguration>",
            "",
        ),
        (b"<CreateBucketConfiguration/>", ""),
        (
            b"<CreateBucketConfiguration><LocationConstraint>eu</LocationConstraint></CreateBucketConfiguration>",
            "InvalidLocationConstraint",
        ),
        (b"<CreateBucketConfiguration><Tags><Tag/></Tags></CreateBucketConfiguration>", "NotImplemented"),
        (b"<Other/>", "MalformedXML"),
        (b"junk", "MalformedXML"),
    ],
)
async def test_bucket_configurations(s3: S3, body: bytes, code: str) -> None:
    assert (await s3.put("/bkt", body)).code == code


# Lists.


async def test_words_of_the_lists(bucket: S3) -> None:
    for key in ("a", "b/1", "b/2", "c"):
        await bucket.put(f"/bkt/{key}", key.encode())

    async def listing(*query: tuple[str, str]) -> Response:
        return await bucket.call("GET", "/bkt", query)

    v2 = await listing(("list-type", "2"), ("max-keys", "2"), ("delimiter", "/"), ("fetch-owner", "true"))
    assert v2.texts("Key") == ["a"]
    assert v2.texts("Prefix") == ["", "b/"]
    assert v2.texts("IsTruncated") == ["true"]
    assert v2.texts("KeyCount") == ["2"]
    assert v2.texts("MaxKeys") == ["2"]
    assert v2.texts("ID") == ["tonfs"]
    [token] = v2.texts("NextContinuationToken")
    more = await listing(("list-type", "2"), ("delimiter", "/"), ("continuation-token", token))
    assert more.texts("Key") == ["c"]
    assert more.texts("ContinuationToken") == [token]
    assert more.texts("IsTruncated") == ["false"]
    after = await listing(("list-type", "2"), ("start-after", "b/1"))
    assert after.texts("Key") == ["b/2", "c"]
    assert after.texts("StartAfter") == ["b/1"]
    none = await listing(("list-type", "2"), ("max-keys", "0"))
    assert (none.texts("KeyCount"), none.texts("IsTruncated")) == (["0"], ["false"])
    v1 = await listing(("max-keys", "2"), ("delimiter", "/"))
    assert v1.texts("NextMarker") == ["b/"]
    assert v1.texts("ID") == ["tonfs"]
    rest = await listing(("marker", "b/"), ("delimiter", "/"))
    assert (rest.texts("Key"), rest.texts("Marker")) == (["c"], ["b/"])
    assert rest.texts("ETag") == [md5(b"c")]
    assert rest.texts("Size") == ["1"]
    spaced = await listing(("prefix", "x y+z"), ("encoding-type", "url"))
    assert spaced.texts("Prefix") == ["x y+z"], "botocore does not decode this one"
    second = await listing(("list-type", "2"), ("prefix", "x y+z"), ("encoding-type", "url"))
    assert second.texts("Prefix") == ["x%20y%2Bz"]


@pytest.mark.parametrize(
    "query",
    [
        [("max-keys", "-1")],
        [("max-keys", "x")],
        [("max-keys", "0x10")],
        [("max-keys", "99999999999")],
        [("encoding-type", "base64")],
        [("list-type", "2"), ("continuation-token", "nonsense")],
        [("list-type", "3")],
        [("prefix", "a"), ("prefix", "b")],
    ],
)
async def test_nonsense_in_lists_is_an_invalid_argument(bucket: S3, query: list[tuple[str, str]]) -> None:
    answer = await bucket.call("GET", "/bkt", query)
    assert (answer.status, answer.code) == (400, "InvalidArgument")


# DeleteObjects.


async def delete_objects(s3: S3, body: bytes, **headers: str) -> Response:
    names = {k.replace("_", "-"): v for k, v in headers.items()}
    return await s3.call("POST", "/bkt", [("delete", "")], headers=names, body=body)


async def test_delete_objects_answers_for_each_key(bucket: S3) -> None:
    for key in ("a", "b", "c"):
        await bucket.put(f"/bkt/{key}", b"x")
    body = (
        b"<Delete><Object><Key>a</Key></Object><Object><Key>a</Key></Object><Object><Key>absent</Key></Object>"
        b"<Object><Key>../x</Key></Object><Object><Key>b</Key><VersionId>1</VersionId></Object></Delete>"
    )
    answer = await delete_objects(bucket, body, content_md5=base64.b64encode(hashlib.md5(body).digest()).decode())
    assert answer.texts("Key") == ["a", "a", "absent", "../x", "b"]
    assert answer.texts("Code") == ["InvalidArgument", "NoSuchVersion"]
    quiet = await delete_objects(bucket, b"<Delete><Quiet>true</Quiet><Object><Key>c</Key></Object></Delete>")
    assert quiet.texts("Key") == []
    listed = await bucket.call("GET", "/bkt", [("list-type", "2")])
    assert listed.texts("Key") == ["b"]


async def test_a_delete_that_is_not_well_formed_deletes_nothing(bucket: S3) -> None:
    await bucket.put("/bkt/a", b"x")
    one = b"<Object><Key>a</Key></Object>"
    for body in (
        b"",
        b"<Delete/>",
        b"<Delete>" + one * 1001 + b"</Delete>",
        b"<Delete>" + one + b"<Object/></Delete>",
        b"<Delete>" + one + b"<Other/></Delete>",
        b"<Delete>" + one,
        b'<!DOCTYPE x [<!ENTITY e "a">]><Delete><Object><Key>&e;</Key></Object></Delete>',
    ):
        answer = await delete_objects(bucket, body)
        assert (answer.status, answer.code) == (400, "MalformedXML")
    huge = await delete_objects(bucket, b"<Delete>" + b" " * (3 << 20) + one + b"</Delete>")
    assert huge.status == 400
    wrong = await delete_objects(bucket, b"<Delete>" + one + b"</Delete>", x_amz_checksum_crc32="AAAAAA==")
    assert wrong.code == "BadDigest"
    assert (await bucket.get("/bkt/a")).status == 200


# HTTP itself.


async def test_raw_http_nonsense_gets_an_answer_and_the_door_goes_on(bucket: S3) -> None:
    def talk(data: bytes) -> bytes:
        host, _, port = bucket.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(data)
            connection.settimeout(5)
            try:
                return connection.recv(4096)
            except (TimeoutError, ConnectionResetError):
                return b""

    host = f"Host: {bucket.address}\r\n".encode()
    for data in (
        b"nonsense\r\n\r\n",
        b"GET http://evil/bkt/k HTTP/1.1\r\n" + host + b"\r\n",
        b"OPTIONS * HTTP/1.1\r\n" + host + b"\r\n",
        b"TRACE / HTTP/1.1\r\n" + host + b"\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 65_536 + b" HTTP/1.1\r\n" + host + b"\r\n",
        b"PUT /bkt/k HTTP/1.1\r\n" + host + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"PUT /bkt/k HTTP/1.1\r\n" + host + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PUT /bkt/k HTTP/1.1\r\n" + host + b"Transfer-Encoding: xchunked\r\n\r\n",
    ):
        answer = await in_thread(partial(talk, data))
        assert answer.startswith(b"HTTP/1."), data[:50]
        assert answer.split(b" ", 2)[1][:1] == b"4", (data[:50], answer[:50])
        assert b"Traceback" not in answer
    assert (await bucket.put("/bkt/k", b"fine")).status == 200


async def test_errors_to_head_have_no_body_and_errors_to_get_are_xml(bucket: S3) -> None:
    head = await bucket.call("HEAD", "/bkt/absent")
    assert (head.status, head.body) == (404, b"")
    got = await bucket.get("/bkt/absent")
    assert got.headers["content-type"] == "application/xml"
    assert got.texts("Code") == ["NoSuchKey"]
    assert got.texts("Resource") == ["/bkt/absent"]
    assert got.texts("RequestId") == [got.headers["x-amz-request-id"]]
