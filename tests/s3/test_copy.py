"""CopyObject, tags, access control lists, list of versions, buckets by pages."""

from __future__ import annotations

import hashlib
from functools import partial

import pytest

from tests.s3.conftest import S3, in_thread
from tests.s3.signer import Response
from tonfs.s3shim.keys import Rights


@pytest.fixture
async def bucket(s3: S3) -> S3:
    assert (await s3.put("/bkt")).status == 200
    return s3


async def copy(s3: S3, source: str, target: str, **headers: str) -> Response:
    names = {k.replace("_", "-"): v for k, v in headers.items()}
    return await s3.call("PUT", target, headers={"x-amz-copy-source": source} | names)


def md5(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


async def test_a_copy_has_bytes_metadata_and_tags(bucket: S3) -> None:
    await bucket.put("/bkt/a", b"x" * 70_000, content_type="text/x", x_amz_meta_m="1", x_amz_tagging="t=u")
    done = await copy(bucket, "/bkt/a", "/bkt/dir/b")
    assert (done.status, done.texts("ETag")) == (200, [md5(b"x" * 70_000)])
    got = await bucket.get("/bkt/dir/b")
    assert got.body == b"x" * 70_000
    shown = [got.headers[name] for name in ("etag", "content-type", "x-amz-meta-m", "x-amz-tagging-count")]
    assert shown == [md5(got.body), "text/x", "1", "1"]


async def test_directives_replace_metadata_and_tags(bucket: S3) -> None:
    await bucket.put("/bkt/a", b"x", x_amz_meta_m="1", x_amz_tagging="t=u")
    await copy(bucket, "bkt/a", "/bkt/b", x_amz_metadata_directive="REPLACE", x_amz_meta_n="2")
    got = await bucket.get("/bkt/b")
    assert ("x-amz-meta-m" in got.headers, got.headers["x-amz-meta-n"]) == (False, "2")
    assert got.headers["x-amz-tagging-count"] == "1"
    await copy(bucket, "bkt/a", "/bkt/c", x_amz_tagging_directive="REPLACE", x_amz_tagging="v=w")
    tags = await bucket.call("GET", "/bkt/c", [("tagging", "")])
    assert (tags.texts("Key"), tags.texts("Value")) == (["v"], ["w"])
    assert (await copy(bucket, "bkt/a", "/bkt/d", x_amz_metadata_directive="MERGE")).code == "InvalidArgument"
    assert (await copy(bucket, "bkt/a", "/bkt/d", x_amz_tagging="v=w")).code == "NotImplemented"


async def test_a_copy_onto_itself_needs_a_change(bucket: S3) -> None:
    await bucket.put("/bkt/a", b"x", x_amz_meta_m="1")
    assert (await copy(bucket, "bkt/a", "/bkt/a")).code == "InvalidRequest"
    assert (await copy(bucket, "bkt/a", "/bkt/a", x_amz_metadata_directive="REPLACE", x_amz_meta_m="2")).status == 200
    got = await bucket.get("/bkt/a")
    assert (got.body, got.headers["x-amz-meta-m"]) == (b"x", "2")


async def test_conditions_on_source_and_target(bucket: S3) -> None:
    await bucket.put("/bkt/a", b"x")
    await bucket.put("/bkt/b", b"y")
    assert (await copy(bucket, "bkt/a", "/bkt/b", if_none_match="*")).code == "PreconditionFailed"
    assert (await copy(bucket, "bkt/a", "/bkt/b", if_match=md5(b"z"))).code == "PreconditionFailed"
    for name, value in (("if_match", md5(b"z")), ("if_none_match", md5(b"x"))):
        assert (await copy(bucket, "bkt/a", "/bkt/c", **{f"x_amz_copy_source_{name}": value})).status == 412
    modified = (await bucket.get("/bkt/a")).headers["last-modified"]
    since = await copy(bucket, "bkt/a", "/bkt/c", x_amz_copy_source_if_modified_since=modified)
    assert since.code == "PreconditionFailed"
    assert (await copy(bucket, "bkt/a", "/bkt/b", if_match=md5(b"y"))).status == 200
    assert (await bucket.get("/bkt/b")).body == b"x"


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("bkt/absent", "NoSuchKey"),
        ("absent/k", "NoSuchBucket"),
        ("bkt", "InvalidArgument"),
        ("", "InvalidArgument"),
        ("bkt/a%zz", "InvalidArgument"),
        ("bkt/../etc/passwd", "InvalidArgument"),
        ("bkt/%2e%2e/x", "InvalidArgument"),
        ("bkt/a?versionId=x", "InvalidArgument"),
        ("bkt/a%00b", "InvalidArgument"),
    ],
)
async def test_sources_that_cannot_be(bucket: S3, source: str, code: str) -> None:
    await bucket.put("/bkt/a", b"x")
    answer = await copy(bucket, source, "/bkt/b")
    assert (answer.code, (await bucket.get("/bkt/b")).status) == (code, 404)


async def test_sources_are_percent_encoded_keys(bucket: S3) -> None:
    for key in ("sp ace", "pl+us", "per%25cent", "a?versionId", "ümlaut"):
        await bucket.call("PUT", "/bkt", key=key, body=key.encode())
    for source, key in (
        ("bkt/sp%20ace", "sp ace"),
        ("bkt/pl%2Bus", "pl+us"),
        ("bkt/pl+us", "pl+us"),
        ("bkt/per%2525cent", "per%25cent"),
        ("bkt/a%3FversionId", "a?versionId"),
        ("bkt/%C3%BCmlaut?versionId=null", "ümlaut"),
    ):
        assert (await copy(bucket, source, "/bkt/copy")).status == 200
        assert (await bucket.get("/bkt/copy")).body == key.encode()


async def test_a_key_that_may_not_read_the_source_copies_nothing(bucket: S3) -> None:
    await bucket.put("/secret")
    await bucket.put("/secret/k", b"x")
    bucket.client = bucket.new_client("bkt", Rights.ADMIN)
    assert (await copy(bucket, "secret/k", "/bkt/k")).code == "AccessDenied"


async def test_a_copy_of_a_file_of_the_mount_gets_an_md5(bucket: S3) -> None:
    top = bucket.volume.resolve([b"bkt"]).inode
    made = bucket.volume.create(top, b"file.txt", 0o100644, 0, 0)
    bucket.volume.write(made.inode, 0, b"posix")
    done = await copy(bucket, "bkt/file.txt", "/bkt/b", x_amz_checksum_algorithm="SHA256")
    assert (done.texts("ETag"), len(done.texts("ChecksumSHA256"))) == ([md5(b"posix")], 1)


# Tags.


def tagging(*pairs: tuple[str, str]) -> bytes:
    inner = "".join(f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>" for key, value in pairs)
    return f"<Tagging><TagSet>{inner}</TagSet></Tagging>".encode()


async def test_tags_are_set_kept_and_removed(bucket: S3) -> None:
    put = await bucket.put("/bkt/k", b"x", x_amz_meta_m="1", x_amz_tagging="z=1&%C3%BC=a%20b")
    tags = await bucket.call("GET", "/bkt/k", [("tagging", "")])
    assert (tags.texts("Key"), tags.texts("Value")) == (["z", "ü"], ["1", "a b"])
    assert (await bucket.call("PUT", "/bkt/k", [("tagging", "")], body=tagging(("a", "b")))).status == 200
    head = await bucket.call("HEAD", "/bkt/k")
    assert (head.headers["x-amz-tagging-count"], head.headers["etag"]) == ("1", put.headers["etag"])
    bucket.volume.write(bucket.volume.resolve([b"bkt", b"k"]).inode, 0, b"y")
    assert (await bucket.call("GET", "/bkt/k", [("tagging", "")])).texts("Key") == ["a"]
    assert (await bucket.call("DELETE", "/bkt/k", [("tagging", "")])).status == 204
    assert (await bucket.call("GET", "/bkt/k", [("tagging", "")])).texts("Key") == []
    assert (await bucket.get("/bkt/k")).headers["x-amz-meta-m"] == "1"
    assert (await bucket.call("GET", "/bkt/absent", [("tagging", "")])).code == "NoSuchKey"


async def test_a_file_of_the_mount_can_be_tagged_and_keeps_its_etag(bucket: S3) -> None:
    top = bucket.volume.resolve([b"bkt"]).inode
    made = bucket.volume.create(top, b"f", 0o100644, 0, 0)
    bucket.volume.write(made.inode, 0, b"posix")
    before = (await bucket.get("/bkt/f")).headers["etag"]
    assert (await bucket.call("PUT", "/bkt/f", [("tagging", "")], body=tagging(("a", "b")))).status == 200
    got = await bucket.get("/bkt/f")
    assert (got.headers["etag"], got.headers["x-amz-tagging-count"]) == (before, "1")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "MalformedXML"),
        (b"<Tagging/>", "MalformedXML"),
        (tagging(*((str(n), "v") for n in range(11))), "InvalidTag"),
        (tagging(("a", "1"), ("a", "2")), "InvalidTag"),
        (tagging(("k" * 129, "v")), "InvalidTag"),
        (tagging(("k", "v" * 257)), "InvalidTag"),
        (tagging(("aws:x", "v")), "InvalidTag"),
        (tagging(("", "v")), "InvalidTag"),
    ],
)
async def test_tags_that_cannot_be_change_nothing(bucket: S3, body: bytes, code: str) -> None:
    await bucket.put("/bkt/k", b"x", x_amz_tagging="a=b")
    assert (await bucket.call("PUT", "/bkt/k", [("tagging", "")], body=body)).code == code
    assert (await bucket.call("GET", "/bkt/k", [("tagging", "")])).texts("Key") == ["a"]
    assert (await bucket.put("/bkt/k", b"y", x_amz_tagging="%ff=1")).code == "InvalidArgument"


async def test_tags_of_a_bucket(bucket: S3) -> None:
    query = [("tagging", "")]
    assert (await bucket.call("GET", "/bkt", query)).code == "NoSuchTagSet"
    assert (await bucket.call("PUT", "/bkt", query, body=tagging(("a", "b")))).status == 204
    assert (await bucket.call("GET", "/bkt", query)).texts("Key") == ["a"]
    assert (await bucket.call("GET", "/bkt", [("list-type", "2")])).texts("Key") == []
    assert (await bucket.call("DELETE", "/bkt", query)).status == 204
    assert (await bucket.call("GET", "/bkt", query)).code == "NoSuchTagSet"


# Lists and configurations.


async def test_every_object_is_its_only_version(bucket: S3) -> None:
    for key in ("a", "b", "d/x"):
        await bucket.put(f"/bkt/{key}", b"x")
    first = await bucket.call("GET", "/bkt", [("versions", ""), ("max-keys", "2")])
    assert (first.texts("Key"), first.texts("VersionId")) == (["a", "b"], ["null", "null"])
    rest = await bucket.call("GET", "/bkt", [("versions", ""), ("key-marker", first.texts("NextKeyMarker")[0])])
    assert (rest.texts("Key"), rest.texts("IsLatest")) == (["d/x"], ["true"])
    assert (await bucket.call("GET", "/bkt/a", [("versionId", "null")])).body == b"x"
    assert (await bucket.call("DELETE", "/bkt/a", [("versionId", "null")])).status == 204
    assert (await bucket.call("DELETE", "/bkt/b", [("versionId", "abc")])).code == "InvalidArgument"
    assert (await bucket.get("/bkt/b")).status == 200


async def test_buckets_by_pages(s3: S3) -> None:
    for name in ("aaa", "aab", "bbb"):
        await s3.put(f"/{name}")
    first = await s3.call("GET", "/", [("max-buckets", "2")])
    assert first.texts("Name") == ["aaa", "aab"]
    token = first.texts("ContinuationToken")[0]
    rest = await s3.call("GET", "/", [("max-buckets", "2"), ("continuation-token", token)])
    assert (rest.texts("Name"), rest.texts("ContinuationToken")) == (["bbb"], [])
    assert (await s3.call("GET", "/", [("prefix", "aa")])).texts("Name") == ["aaa", "aab"]
    for bad in ("0", "-1", "x", "10001"):
        assert (await s3.call("GET", "/", [("max-buckets", bad)])).code == "InvalidArgument"


@pytest.mark.parametrize(
    ("word", "code"),
    [("policy", "NoSuchBucketPolicy"), ("cors", "NoSuchCORSConfiguration"), ("website", "NoSuchWebsiteConfiguration")],
)
async def test_configurations_that_no_bucket_has(bucket: S3, word: str, code: str) -> None:
    assert (await bucket.call("GET", "/bkt", [(word, "")])).code == code
    assert (await bucket.call("PUT", "/bkt", [(word, "")], body=b"<x/>")).code == "NotImplemented"
    assert (await bucket.call("DELETE", "/bkt", [(word, "")])).code == "NotImplemented"
    assert (await bucket.call("HEAD", "/bkt")).status == 200
    assert (await bucket.call("GET", "/bkt", [("versioning", "")])).texts("Status") == []


async def test_lists_of_access_rights_are_the_owners(bucket: S3) -> None:
    await bucket.put("/bkt/k", b"x", x_amz_acl="private")
    for path in ("/bkt", "/bkt/k"):
        answer = await bucket.call("GET", path, [("acl", "")])
        assert (answer.texts("Permission"), answer.texts("ID")) == (["FULL_CONTROL"], ["tonfs", "tonfs"])
        assert (await bucket.call("PUT", path, [("acl", "")], body=answer.body)).status == 200
        for canned, status in (("private", 200), ("public-read-write", 400), ("authenticated-read", 400)):
            got = await bucket.call("PUT", path, [("acl", "")], headers={"x-amz-acl": canned})
            assert got.status == status
    assert (await bucket.put("/bkt/k", b"y", x_amz_acl="public-read")).code == "AccessControlListNotSupported"
    assert (await bucket.get("/bkt/k")).body == b"x"
    assert (await bucket.call("GET", "/bkt/absent", [("acl", "")])).code == "NoSuchKey"


async def test_a_bucket_made_public_is_so_until_it_is_deleted(s3: S3) -> None:
    async def anonymous(method: str, path: str) -> int:
        return (await in_thread(partial(s3.client.send, method, path, {"host": s3.client.host}))).status

    assert (await s3.put("/open", x_amz_acl="public-read")).status == 200
    assert (await s3.put("/open/k", b"x", x_amz_acl="public-read")).status == 200
    assert (await s3.put("/open/k", b"y", x_amz_acl="private")).code == "AccessControlListNotSupported"
    assert [await anonymous("GET", path) for path in ("/open/k", "/open?list-type=2")] == [200, 200]
    assert [await anonymous("GET", path) for path in ("/open?uploads", "/", "/other")] == [403, 403, 403]
    assert [await anonymous(method, "/open/k") for method in ("PUT", "DELETE", "POST")] == [403, 403, 403]
    assert (await s3.call("GET", "/open", [("acl", "")])).texts("Permission") == ["FULL_CONTROL", "READ"]
    assert (await s3.call("PUT", "/open", [("acl", "")], headers={"x-amz-acl": "private"})).status == 200
    assert await anonymous("GET", "/open/k") == 403
    await s3.call("PUT", "/open", [("acl", "")], headers={"x-amz-acl": "public-read"})
    await s3.call("DELETE", "/open/k")
    assert (await s3.call("DELETE", "/open")).status == 204
    await s3.put("/open")
    await s3.put("/open/k", b"private")
    assert await anonymous("GET", "/open/k") == 403, "another bucket of the name is not public"


async def test_a_browser_is_told_that_there_is_no_cors(bucket: S3) -> None:
    async def ask(**headers: str) -> Response:
        return await in_thread(partial(bucket.client.send, "OPTIONS", "/bkt/k", {"host": bucket.client.host} | headers))

    assert ((await ask()).status, (await ask(origin="http://x")).code) == (400, "AccessForbidden")
