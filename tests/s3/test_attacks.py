"""The list "Security: cases to test" of the S3 reference over real connections: whatever is sent, the door answers with
a refusal of 4xx or 501, tells nothing about this machine, keeps the old object, and serves the next client."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from functools import partial

import pytest
import trio

from tests.s3.conftest import S3, in_thread
from tests.s3.raw import Raw, answer, connect, head, talk
from tests.s3.signer import Client, Response
from tonfs.s3shim import connections

MIB = 1 << 20


@pytest.fixture
async def bucket(s3: S3) -> AsyncIterator[S3]:
    """With an object `/bkt/k` that is as it was at the end of every test."""
    assert (await s3.put("/bkt")).status == 200
    assert (await s3.put("/bkt/k", b"original")).status == 200
    yield s3
    got = await s3.get("/bkt/k")
    assert (got.status, got.body) == (200, b"original")


def polite(s3: S3, found: Raw | Response, *statuses: int) -> Raw | Response:
    """A refusal that names no path, no trace and no secret."""
    assert 400 <= found.status < 500 or found.status == 501, (found.status, found.body[:300])
    assert not statuses or found.status in statuses, (found.status, found.body[:300])
    for secret in (b"Traceback", b"/tmp/", str(s3.directory).encode(), b"site-packages", s3.client.secret_key.encode()):
        assert secret not in found.body
    return found


# HTTP itself.

NONSENSE = {
    "a negative length": "Content-Length: -1",
    "a length with an exponent": "Content-Length: 1e1",
    "a length with a sign": "Content-Length: +3",
    "two lengths": "Content-Length: 3\r\nContent-Length: 4",
    "a length beside chunks": "Content-Length: 3\r\nTransfer-Encoding: chunked",
    "an unknown transfer encoding": "Transfer-Encoding: xchunked",
    "a space before the colon": "x-thing : 1",
    "a folded line": "x-thing: 1\r\n  more",
    "a header without a colon": "nonsense",
    "a NUL": "x-thing: \0",
    "a megabyte in one header": "x-thing: " + "a" * MIB,
    "five thousand headers": "\r\n".join(f"x-thing-{n}: 1" for n in range(5000)),
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_heads_that_no_client_would_send_are_refused(bucket: S3, what: str) -> None:
    data = f"PUT /bkt/k HTTP/1.1\r\nHost: {bucket.address}\r\n{NONSENSE[what]}\r\n\r\nxyz".encode()
    found = await in_thread(partial(talk, bucket.address, data))
    polite(bucket, found, 400, 403)
    assert found.code in ("BadRequest", "AccessDenied")
    assert b"application/xml" in found.head


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /" + b"a" * 65536 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://example.org/bkt/k HTTP/1.1\r\nHost: x\r\n\r\n",
        b"TRACE /bkt/k HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PROPFIND /bkt HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_what_is_not_a_request_is_refused(bucket: S3, data: bytes) -> None:
    polite(bucket, await in_thread(partial(talk, bucket.address, data)))


async def test_a_signed_head_of_twenty_kilobytes_is_refused(bucket: S3) -> None:
    sent = bucket.client.signed("GET", "/bkt/k", headers={"x-amz-meta-long": "a" * 20_480})
    polite(bucket, await in_thread(partial(talk, bucket.address, head("GET", "/bkt/k", sent))), 400)


async def test_an_answers_headers_cannot_be_broken_out_of(bucket: S3) -> None:
    for value in ("text/html\r\nX-Evil: 1", "a\nb", "a\0b"):
        polite(bucket, await bucket.call("GET", "/bkt/k", query=[("response-content-type", value)]), 400)


async def test_no_cors_headers_unless_asked_for(bucket: S3) -> None:
    found = await bucket.get("/bkt/k", origin="https://example.org")
    assert not [name for name in found.headers if name.startswith("access-control")]


# Paths.


@pytest.mark.parametrize(
    "path",
    [
        "/bkt/../k",
        "/bkt/%2e%2e/k",
        "/bkt/%2e%2e%2fk",
        "/bkt/a%2f..%2fk",
        "/bkt//k",
        "/bkt/%00",
        "/bkt/%zz",
        "/bkt/%c0%ae%c0%ae/k",
        "/bkt/%ff",
        "/..",
        "/%2e%2e/bkt",
        "/bkt%2fk",
        "/%2fetc/passwd",
        "/bkt%00/k",
        "/run/front.sock",
        "/.tonfs/status",
    ],
)
async def test_paths_lead_nowhere_else(bucket: S3, path: str) -> None:
    for method, body in (("GET", b""), ("PUT", b"evil"), ("DELETE", b"")):
        found = await bucket.call(method, path, body=body)
        if method != "DELETE" or found.status != 204:  # deleting what cannot be there is fine
            polite(bucket, found, 400, 403, 404)
        if path != "/bkt%2fk":  # clients may encode the whole source, its slash, too
            copied = await bucket.call("PUT", "/bkt/copy", headers={"x-amz-copy-source": path})
            polite(bucket, copied, 400, 403, 404)


async def test_backslashes_are_names_like_any_other(bucket: S3) -> None:
    assert (await bucket.put("/bkt/%5c..%5c", b"x")).status == 200
    assert (await bucket.call("DELETE", "/bkt/%5c..%5c")).status == 204


async def test_a_prefix_cannot_climb(bucket: S3) -> None:
    for prefix in ("../", "/", "..", "./", "\0", "a/../"):
        found = await bucket.call("GET", "/bkt", query=[("list-type", "2"), ("prefix", prefix)])
        assert found.status in (200, 400)
        assert b"<Key>" not in found.body


# XML.

BOMB = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    "<{root}>&b;</{root}>"
)
EXTERNAL = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><{root}>&f;</{root}>'
XML = {
    "an entity bomb": BOMB.encode(),
    "an external entity": EXTERNAL.encode(),
    "nothing": b"",
    "no XML": b"{}",
    "half of it": b"<{root}><a>",
    "another root": b"<Other/>",
    "a hundred thousand levels": b"<{root}>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</{root}>",
    "UTF-16": "<{root}/>".encode("utf-16"),
    "bytes that are no text": b"<{root}>\xff\xfe</{root}>",
    "three megabytes": b"<{root}>" + b" " * (3 * MIB) + b"</{root}>",
}


@pytest.mark.parametrize("what", XML)
async def test_documents_that_attack_are_malformed(bucket: S3, what: str) -> None:
    begun = await bucket.call("POST", "/bkt/multi", query=[("uploads", "")])
    upload = begun.texts("UploadId")[0]
    places = [
        ("POST", "/bkt", [("delete", "")], "Delete"),
        ("POST", "/bkt/multi", [("uploadId", upload)], "CompleteMultipartUpload"),
        ("PUT", "/bkt/k", [("tagging", "")], "Tagging"),
    ]
    if what != "nothing":
        places.append(("PUT", "/newbucket", [], "CreateBucketConfiguration"))
    for method, path, query, root in places:
        found = await bucket.call(method, path, query=query, body=XML[what].replace(b"{root}", root.encode()))
        polite(bucket, found, 400)
        assert b"root:" not in found.body
    assert (await bucket.call("HEAD", "/newbucket")).status == 404


async def test_a_thousand_and_one_keys_are_too_many(bucket: S3) -> None:
    objects = "".join(f"<Object><Key>k{n}</Key></Object>" for n in range(1001))
    found = await bucket.call("POST", "/bkt", query=[("delete", "")], body=f"<Delete>{objects}</Delete>".encode())
    polite(bucket, found, 400)


@pytest.mark.parametrize("number", ["0", "-1", "10001", "99999999999999999999", "", "text", "1.5", "0x10", "١"])
async def test_part_numbers_are_one_to_ten_thousand(bucket: S3, number: str) -> None:
    upload = (await bucket.call("POST", "/bkt/multi", query=[("uploads", "")])).texts("UploadId")[0]
    words = [("partNumber", number), ("uploadId", upload)]
    polite(bucket, await bucket.call("PUT", "/bkt/multi", query=words, body=b"x"), 400)


@pytest.mark.parametrize("upload", ["../../k", "%2e%2e", "a" * 5000, "", "\0", "-1", "x' OR '1'='1"])
async def test_upload_ids_are_only_those_that_were_given_out(bucket: S3, upload: str) -> None:
    for method, query in (("PUT", [("partNumber", "1")]), ("GET", []), ("DELETE", []), ("POST", [])):
        found = await bucket.call(method, "/bkt/k", query=[*query, ("uploadId", upload)], body=b"<a/>")
        polite(bucket, found, 400, 404)


@pytest.mark.parametrize("word", ["-1", "text", "1" * 30, "0x10", "1e9", " "])
async def test_numbers_of_lists_are_numbers(bucket: S3, word: str) -> None:
    for query in ([("list-type", "2")], [("uploads", "")], [("versions", "")]):
        name = "max-uploads" if query[0][0] == "uploads" else "max-keys"
        polite(bucket, await bucket.call("GET", "/bkt", query=[*query, (name, word)]), 400)


@pytest.mark.parametrize(
    "text",
    [
        "bytes=5-1",
        "bytes=-0",
        "bytes=" + "9" * 40 + "-",
        "bytes=99-",
        "bytes=0-1," * 500 + "0-1",
        "lines=1-2",
        "bytes=",
    ],
)
async def test_ranges_are_one_range_or_none(bucket: S3, text: str) -> None:
    found = await bucket.get("/bkt/k", range=text)
    assert (found.status == 200 and found.body == b"original") or polite(bucket, found, 416, 400)


async def test_metadata_over_two_kilobytes_is_refused(bucket: S3) -> None:
    polite(bucket, await bucket.put("/bkt/k", b"x", x_amz_meta_a="v" * 2049), 400)


IGNORED = (
    {"x-amz-server-side-encryption": "aws:kms"},
    {"x-amz-server-side-encryption-customer-algorithm": "AES256"},
    {"x-amz-acl": "public-read-write"},
    {"x-amz-grant-read": "id=1"},
    {"x-amz-object-lock-mode": "COMPLIANCE"},
    {"x-amz-storage-class": "GLACIER"},
    {"x-amz-expected-bucket-owner": "somebody"},
    {"x-amz-website-redirect-location": "/x"},
    {"x-amz-security-token": "t"},
)


@pytest.mark.parametrize("headers", IGNORED, ids=lambda found: next(iter(found)))
async def test_what_is_not_done_is_refused_and_not_forgotten(bucket: S3, headers: dict[str, str]) -> None:
    polite(bucket, await bucket.call("PUT", "/bkt/k", headers=headers, body=b"new"), 400, 403, 501)


@pytest.mark.parametrize("word", ["acl", "torrent", "retention", "legal-hold", "restore", "select", "versionId=x"])
async def test_sub_resources_never_touch_the_object(bucket: S3, word: str) -> None:
    name, _, value = word.partition("=")
    for method in ("PUT", "DELETE"):
        found = await bucket.call(method, "/bkt/k", query=[(name, value)], body=b"<x/>" if method == "PUT" else b"")
        polite(bucket, found)


# Slow and many.


def drip(address: str) -> float:
    """Seconds until a connection that sends one byte of its head every tenth of a second is cut."""
    started = time.monotonic()
    with connect(address) as connection:
        for byte in b"GET /bkt/k HTTP/1.1\r\nHost: " + b"x" * 600:
            try:
                connection.sendall(bytes((byte,)))
                connection.settimeout(0.1)
                if connection.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            raise AssertionError("it was never cut")
    return time.monotonic() - started


async def test_a_head_that_drips_is_cut(bucket: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    assert connections.IDLE + connections.PATROL < 75
    monkeypatch.setattr(connections, "IDLE", 1.0)
    assert await in_thread(partial(drip, bucket.address)) < 30


async def test_two_hundred_half_open_requests_leave_a_good_client_served(bucket: S3) -> None:
    body = bucket.client.signed("PUT", "/bkt/k", payload="UNSIGNED-PAYLOAD") | {"content-length": "100"}

    def open_all() -> list[socket.socket]:
        held = []
        for number in range(200):
            connection = connect(bucket.address)
            part = (b"GET /bkt", b"GET /bkt/k HTTP/1.1\r\nHost", b"", head("PUT", "/bkt/k", body) + b"x")[number % 4]
            connection.sendall(part)
            held.append(connection)
        return held

    held = await in_thread(open_all)
    with trio.fail_after(30):
        assert (await bucket.put("/bkt/other", b"served")).status == 200
        assert (await bucket.get("/bkt/other")).body == b"served"
    for connection in held:
        connection.close()


async def test_beyond_the_limit_the_longest_idle_connection_goes(bucket: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)

    def flood() -> None:
        strangers = [connect(bucket.address) for _ in range(30)]
        with connect(bucket.address) as good:
            good.sendall(head("GET", "/bkt/k", bucket.client.signed("GET", "/bkt/k")))
            assert answer(good).status == 200
            assert strangers[0].recv(1) == b""
            strangers[-1].sendall(b"GET /.health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer(strangers[-1]).status == 200
        for stranger in strangers:
            stranger.close()

    await in_thread(flood)


async def test_a_body_that_stops_coming_is_given_up(bucket: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tonfs.s3shim.http.READ_TIMEOUT", 0.3)
    sent = bucket.client.signed("PUT", "/bkt/k", body=b"whole body") | {"content-length": "10"}

    def half() -> Raw:
        with connect(bucket.address) as connection:
            connection.sendall(head("PUT", "/bkt/k", sent) + b"whol")
            return answer(connection)

    found = await in_thread(half)
    assert (found.status, found.code) == (400, "RequestTimeout")


async def test_requests_one_behind_the_other_on_one_connection_are_told_apart(bucket: S3) -> None:
    """A refused body must not be read as the next request."""
    evil = head("DELETE", "/bkt/k", bucket.client.signed("DELETE", "/bkt/k"))
    forged = bucket.client.signed("PUT", "/bkt/k", body=evil) | {"content-length": str(len(evil) + 10 * MIB)}
    forged["authorization"] = forged["authorization"][:-1] + "x"
    found = await in_thread(partial(talk, bucket.address, head("PUT", "/bkt/k", forged) + evil))
    polite(bucket, found, 403)
    assert b"Connection: close" in found.head


async def test_a_client_of_another_door_cannot_replay(bucket: S3) -> None:
    elsewhere = Client("other.example.org:80", bucket.client.access_key, bucket.client.secret_key)
    sent = elsewhere.signed("DELETE", "/bkt/k") | {"host": bucket.address}
    polite(bucket, await in_thread(partial(talk, bucket.address, head("DELETE", "/bkt/k", sent))), 403)
