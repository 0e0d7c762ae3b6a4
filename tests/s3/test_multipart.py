"""Multipart uploads over HTTP: parts, completing, listing, checksums, what is refused."""

from __future__ import annotations

import base64
import hashlib
import zlib

import pytest
import trio

from tests.s3.conftest import S3
from tests.s3.signer import Response
from tonfs.s3shim import multipart
from tonfs.volume import S3Record, UploadPart

MIB = 1 << 20


@pytest.fixture
async def bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """Parts may be small here."""
    monkeypatch.setattr(multipart, "MIN_PART", 10)
    assert (await s3.put("/bkt")).status == 200
    return s3


async def begin(s3: S3, path: str = "/bkt/k", **headers: str) -> str:
    answer = await s3.call(
        "POST", path, [("uploads", "")], headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    assert answer.status == 200, answer.body
    return answer.texts("UploadId")[0]


async def part(s3: S3, upload: str, number: int, body: bytes, path: str = "/bkt/k", **headers: str) -> Response:
    query = [("partNumber", str(number)), ("uploadId", upload)]
    return await s3.call("PUT", path, query, headers={k.replace("_", "-"): v for k, v in headers.items()}, body=body)


def wish(parts: list[tuple[int, str]], extra: str = "") -> bytes:
    inner = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{e}</ETag>{extra}</Part>" for n, e in parts)
    return f"<CompleteMultipartUpload>{inner}</CompleteMultipartUpload>".encode()


async def complete(s3: S3, upload: str, body: bytes, path: str = "/bkt/k", **headers: str) -> Response:
    names = {k.replace("_", "-"): v for k, v in headers.items()}
    return await s3.call("POST", path, [("uploadId", upload)], headers=names, body=body)


def etag_of(*bodies: bytes) -> str:
    inner = b"".join(hashlib.md5(body).digest() for body in bodies)
    return f'"{hashlib.md5(inner).hexdigest()}-{len(bodies)}"'


def crc(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


async def test_parts_become_the_object_with_its_headers(bucket: S3) -> None:
    upload = await begin(bucket, content_type="text/x", x_amz_meta_m="1", x_amz_tagging="a=b", cache_control="no-store")
    bodies = [b"a" * 10, b"b" * 20, b"c"]
    sent = [(n, (await part(bucket, upload, n, body)).headers["etag"]) for n, body in enumerate(bodies, 1)]
    assert (await bucket.get("/bkt/k")).code == "NoSuchKey"
    done = await complete(bucket, upload, wish(sent))
    assert done.texts("ETag") == [etag_of(*bodies)]
    got = await bucket.get("/bkt/k")
    assert got.body == b"".join(bodies)
    kept = {"etag": etag_of(*bodies), "content-type": "text/x", "x-amz-meta-m": "1", "cache-control": "no-store"}
    assert {name: got.headers[name] for name in kept} == kept
    assert got.headers["x-amz-tagging-count"] == "1"


async def test_a_second_complete_answers_the_same(bucket: S3) -> None:
    upload = await begin(bucket)
    etag = (await part(bucket, upload, 1, b"data")).headers["etag"]
    first = await complete(bucket, upload, wish([(1, etag)]), if_none_match="*")
    again = await complete(bucket, upload, wish([(1, etag)]), if_none_match="*")
    assert (again.status, again.texts("ETag")) == (200, first.texts("ETag"))
    other = await complete(bucket, upload, wish([(1, "0" * 32)]))
    assert (other.status, other.code) == (404, "NoSuchUpload")
    assert (await part(bucket, upload, 2, b"late")).code == "NoSuchUpload"
    assert (await bucket.call("DELETE", "/bkt/k", [("uploadId", upload)])).code == "NoSuchUpload"


async def test_two_completes_at_once_make_one_object(bucket: S3) -> None:
    upload = await begin(bucket)
    etag = (await part(bucket, upload, 1, b"data")).headers["etag"]
    answers: list[int] = []

    async def go() -> None:
        answers.append((await complete(bucket, upload, wish([(1, etag)]))).status)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(go)
    assert answers == [200] * 4


async def test_an_upload_that_is_completed_while_another_complete_looks_answers_both(
    bucket: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await begin(bucket)
    etag = (await part(bucket, upload, 1, b"data")).headers["etag"]
    real, parts = bucket.volume.upload_parts, bucket.volume.upload_parts(upload)

    def overtaken(upload_id: str, after: int = 0, limit: int = 10_000) -> list[UploadPart]:
        monkeypatch.setattr(bucket.volume, "upload_parts", real)
        record, done = S3Record(etag_of(b"data").strip('"')), {"checksums": {}, "kind": "COMPOSITE"}
        bucket.volume.complete_upload(upload_id, parts, [b"k"], record, done | {"etag": record.etag})
        return real(upload_id, after, limit)

    monkeypatch.setattr(bucket.volume, "upload_parts", overtaken)
    answer = await complete(bucket, upload, wish([(1, etag)]))
    assert (answer.status, answer.texts("ETag")) == (200, [etag_of(b"data")])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "MalformedXML"),
        (b"<CompleteMultipartUpload/>", "MalformedXML"),
        (b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>", "MalformedXML"),
        (b"<Other><Part/></Other>", "MalformedXML"),
        (wish([(0, "{1}")]), "InvalidArgument"),
        (wish([(10001, "{1}")]), "InvalidArgument"),
        (wish([(99999999999, "{1}")]), "MalformedXML"),
        (wish([(2, "{2}"), (1, "{1}")]), "InvalidPartOrder"),
        (wish([(1, "{1}"), (1, "{1}")]), "InvalidPartOrder"),
        (wish([(1, "{1}"), (3, "{2}")]), "InvalidPart"),
        (wish([(1, "{2}")]), "InvalidPart"),
        (wish([(1, "nonsense")]), "InvalidPart"),
        (wish([(1, "{1}"), (2, "{2}")]), "EntityTooSmall"),
    ],
)
async def test_what_cannot_be_completed_is_refused_and_the_parts_stay(bucket: S3, body: bytes, code: str) -> None:
    upload = await begin(bucket)
    tags = [(await part(bucket, upload, n, b"small%d" % n)).headers["etag"].strip('"') for n in (1, 2)]
    for number, tag in enumerate(tags, 1):
        body = body.replace(b"{%d}" % number, tag.encode())
    answer = await complete(bucket, upload, body)
    assert (answer.status, answer.code) == (400, code)
    listed = await bucket.call("GET", "/bkt/k", [("uploadId", upload)])
    assert listed.texts("PartNumber") == ["1", "2"]
    assert (await bucket.get("/bkt/k")).code == "NoSuchKey"


async def test_a_part_sent_again_counts(bucket: S3) -> None:
    upload = await begin(bucket)
    first = (await part(bucket, upload, 1, b"first")).headers["etag"]
    second = (await part(bucket, upload, 1, b"second")).headers["etag"]
    assert (await complete(bucket, upload, wish([(1, first)]))).code == "InvalidPart"
    await complete(bucket, upload, wish([(1, second)]))
    assert (await bucket.get("/bkt/k")).body == b"second"


async def test_an_upload_belongs_to_its_key(bucket: S3) -> None:
    upload = await begin(bucket)
    for path in ("/bkt/other", "/bkt/k/", "/bkt/K"):
        assert (await part(bucket, upload, 1, b"x", path)).code == "NoSuchUpload"
        assert (await bucket.call("GET", path, [("uploadId", upload)])).code == "NoSuchUpload"
        assert (await complete(bucket, upload, wish([(1, "0" * 32)]), path)).code == "NoSuchUpload"
    for bad in ("../../x", "x" * 5000, "", "0" * 32):
        assert (await part(bucket, bad, 1, b"x")).code == "NoSuchUpload"


@pytest.mark.parametrize("number", ["0", "-1", "10001", "99999999999", "x", "", "1.0", "0x1"])
async def test_part_numbers_are_checked(bucket: S3, number: str) -> None:
    upload = await begin(bucket)
    query = [("partNumber", number), ("uploadId", upload)]
    assert (await bucket.call("PUT", "/bkt/k", query, body=b"x")).code == "InvalidArgument"


async def test_listing_parts_and_uploads_by_pages(bucket: S3) -> None:
    upload = await begin(bucket, x_amz_checksum_algorithm="CRC32")
    for number in (1, 2, 3):
        await part(bucket, upload, number, b"x" * number)
    query = [("uploadId", upload), ("max-parts", "2")]
    first = await bucket.call("GET", "/bkt/k", query)
    assert first.texts("PartNumber") == ["1", "2"]
    assert (first.texts("IsTruncated"), first.texts("NextPartNumberMarker")) == (["true"], ["2"])
    assert first.texts("ChecksumCRC32") == [crc(b"x"), crc(b"xx")]
    rest = await bucket.call("GET", "/bkt/k", [*query, ("part-number-marker", "2")])
    assert (rest.texts("PartNumber"), rest.texts("IsTruncated")) == (["3"], ["false"])
    for key in ("a/1", "a/2", "b"):
        await begin(bucket, f"/bkt/{key}")
    seen: list[str] = []
    markers: list[tuple[str, str]] = []
    for _ in range(10):
        page = await bucket.call("GET", "/bkt", [("uploads", ""), ("max-uploads", "1"), *markers])
        seen += page.texts("Key")
        if page.texts("IsTruncated") == ["false"]:
            break
        markers = [
            ("key-marker", page.texts("NextKeyMarker")[0]),
            ("upload-id-marker", page.texts("NextUploadIdMarker")[0]),
        ]
    assert seen == ["a/1", "a/2", "b", "k"]
    grouped = await bucket.call("GET", "/bkt", [("uploads", ""), ("delimiter", "/")])
    assert (grouped.texts("Key"), grouped.texts("Prefix")) == (["b", "k"], ["", "a/"])


async def test_an_aborted_upload_is_gone(bucket: S3) -> None:
    upload = await begin(bucket)
    await part(bucket, upload, 1, b"x")
    assert (await bucket.call("DELETE", "/bkt/k", [("uploadId", upload)])).status == 204
    assert (await bucket.call("DELETE", "/bkt/k", [("uploadId", upload)])).code == "NoSuchUpload"
    assert (await bucket.call("GET", "/bkt", [("uploads", "")])).texts("UploadId") == []


async def test_conditions_hold_for_the_completed_object(bucket: S3) -> None:
    put = await bucket.put("/bkt/k", b"old")
    upload = await begin(bucket)
    etag = (await part(bucket, upload, 1, b"new")).headers["etag"]
    assert (await complete(bucket, upload, wish([(1, etag)]), if_none_match="*")).code == "PreconditionFailed"
    assert (await complete(bucket, upload, wish([(1, etag)]), if_match='"no"')).code == "PreconditionFailed"
    assert (await complete(bucket, upload, wish([(1, etag)]), if_match=put.headers["etag"])).status == 200
    assert (await bucket.get("/bkt/k")).body == b"new"


@pytest.mark.parametrize(("kind", "asked"), [("COMPOSITE", ""), ("FULL_OBJECT", "FULL_OBJECT")])
async def test_checksums_of_parts_and_object(bucket: S3, kind: str, asked: str) -> None:
    headers = {"x_amz_checksum_algorithm": "CRC32"} | ({"x_amz_checksum_type": asked} if asked else {})
    upload = await begin(bucket, **headers)
    bodies = [b"a" * 10, b"b" * 20]
    assert (await part(bucket, upload, 1, bodies[0], x_amz_checksum_crc32=crc(b"other"))).code == "BadDigest"
    tags = [
        (n, (await part(bucket, upload, n, body, x_amz_checksum_crc32=crc(body))).headers["etag"])
        for n, body in enumerate(bodies, 1)
    ]
    inner = b"".join(base64.b64decode(crc(body)) for body in bodies)
    whole = crc(b"".join(bodies)) if kind == "FULL_OBJECT" else f"{crc(inner)}-2"
    assert (await complete(bucket, upload, wish(tags), x_amz_checksum_crc32="AAAAAA==")).code == "BadDigest"
    bad = "<ChecksumCRC32>AAAAAA==</ChecksumCRC32>"
    assert (await complete(bucket, upload, wish(tags, bad))).code == "InvalidPart"
    assert (await complete(bucket, upload, wish(tags), x_amz_mp_object_size="31")).code == "InvalidRequest"
    done = await complete(bucket, upload, wish(tags), x_amz_checksum_crc32=whole, x_amz_mp_object_size="30")
    assert (done.texts("ChecksumCRC32"), done.texts("ChecksumType")) == ([whole], [kind])
    got = await bucket.get("/bkt/k", x_amz_checksum_mode="ENABLED")
    assert (got.headers["x-amz-checksum-crc32"], got.headers["x-amz-checksum-type"]) == (whole, kind)
    ranged = await bucket.get("/bkt/k", x_amz_checksum_mode="ENABLED", range="bytes=0-5")
    assert "x-amz-checksum-crc32" not in ranged.headers
    second = await bucket.call("GET", "/bkt/k", [("partNumber", "2")], headers={"x-amz-checksum-mode": "ENABLED"})
    assert (second.status, second.body) == (206, bodies[1])
    assert second.headers["x-amz-checksum-crc32"] == crc(bodies[1])
    assert second.headers["x-amz-mp-parts-count"] == "2"


async def test_checksum_types_that_do_not_exist_are_refused(bucket: S3) -> None:
    for algorithm, kind in (("SHA256", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE"), ("CRC32", "OTHER"), ("MD2", "")):
        headers = {"x-amz-checksum-algorithm": algorithm} | ({"x-amz-checksum-type": kind} if kind else {})
        answer = await bucket.call("POST", "/bkt/k", [("uploads", "")], headers=headers)
        assert (answer.status, answer.code) == (400, "InvalidRequest")


async def test_object_attributes(bucket: S3) -> None:
    upload = await begin(bucket)
    tags = [(n, (await part(bucket, upload, n, b"x" * 10 * n)).headers["etag"]) for n in (1, 2, 3)]
    await complete(bucket, upload, wish(tags))
    asked = {"x-amz-object-attributes": "ETag,ObjectSize,ObjectParts,StorageClass,Checksum"}
    more = {"x-amz-max-parts": "1", "x-amz-part-number-marker": "1"}
    answer = await bucket.call("GET", "/bkt/k", [("attributes", "")], headers=asked | more)
    assert answer.texts("ETag") == [etag_of(b"x" * 10, b"x" * 20, b"x" * 30).strip('"')]
    assert (answer.texts("ObjectSize"), answer.texts("Size"), answer.texts("PartsCount")) == (["60"], ["20"], ["3"])
    assert (answer.texts("IsTruncated"), answer.texts("NextPartNumberMarker")) == (["true"], ["2"])
    bad = await bucket.call("GET", "/bkt/k", [("attributes", "")], headers={"x-amz-object-attributes": "Colour"})
    assert bad.code == "InvalidArgument"


async def test_a_write_through_the_mount_makes_one_file_of_the_parts(bucket: S3) -> None:
    upload = await begin(bucket)
    tags = [(n, (await part(bucket, upload, n, b"x" * 10)).headers["etag"]) for n in (1, 2)]
    await complete(bucket, upload, wish(tags))
    bucket.volume.write(bucket.volume.resolve([b"bkt", b"k"]).inode, 0, b"y")
    assert (await bucket.call("GET", "/bkt/k", [("partNumber", "2")])).code == "InvalidPart"
    whole = await bucket.call("GET", "/bkt/k", [("partNumber", "1")])
    assert whole.body == b"y" + b"x" * 19
    assert "x-amz-mp-parts-count" not in whole.headers


async def test_parts_copied_from_objects(bucket: S3) -> None:
    await bucket.put("/bkt/source%201%25", b"0123456789")
    upload = await begin(bucket)
    query = [("partNumber", "1"), ("uploadId", upload)]

    async def copy(**headers: str) -> Response:
        names = {k.replace("_", "-"): v for k, v in headers.items()}
        return await bucket.call("PUT", "/bkt/k", query, headers={"x-amz-copy-source": "bkt/source%201%25"} | names)

    whole = await copy()
    assert whole.texts("ETag") == [f'"{hashlib.md5(b"0123456789").hexdigest()}"']
    piece = await copy(x_amz_copy_source_range="bytes=2-4")
    assert piece.texts("ETag") == [f'"{hashlib.md5(b"234").hexdigest()}"']
    for bad in ("2-4", "bytes=2", "bytes=4-2", "bytes=-2", "bytes=0-1,3-4"):
        assert (await copy(x_amz_copy_source_range=bad)).code == "InvalidArgument"
    assert (await copy(x_amz_copy_source_range="bytes=0-10")).code == "InvalidRange"
    assert (await copy(x_amz_copy_source_if_match='"no"')).code == "PreconditionFailed"
    assert (await copy(x_amz_copy_source="bkt/absent")).code == "NoSuchKey"
    await complete(bucket, upload, wish([(1, piece.texts("ETag")[0])]))
    assert (await bucket.get("/bkt/k")).body == b"234"


async def test_a_bucket_with_uploads_can_be_deleted(bucket: S3) -> None:
    upload = await begin(bucket)
    await part(bucket, upload, 1, b"x")
    assert (await bucket.call("DELETE", "/bkt")).status == 204
    assert (await bucket.put("/bkt")).status == 200
    assert (await complete(bucket, upload, wish([(1, hashlib.md5(b"x").hexdigest())]))).code == "NoSuchUpload"
