"""One namespace, two doors: what the mount does shows over S3 at once, and the other way round, without lies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import trio

from tests.s3.conftest import S3, in_thread
from tests.s3.test_multipart import begin, complete, etag_of, part, wish
from tests.unit.volume.helpers import Packer, check, crash_copy
from tonfs.errors import Busy, PeerUnreachable, TimedOut
from tonfs.s3shim.app import serve_s3
from tonfs.s3shim.multipart import MIN_PART
from tonfs.volume import ROOT, RemoteRange, Volume


@pytest.fixture
async def bucket(s3: S3) -> S3:
    assert (await s3.put("/bkt")).status == 200
    return s3


def inode(s3: S3, *parts: bytes) -> Any:
    return s3.volume.resolve(parts).inode


def write_file(s3: S3, name: bytes, data: bytes) -> Any:
    """As the mount would: create and write."""
    made = s3.volume.create(inode(s3, b"bkt"), name, 0o100644, os.getuid(), os.getgid())
    s3.volume.write(made.inode, 0, data)
    return made.inode


async def test_a_put_is_a_file_and_a_file_is_an_object(bucket: S3) -> None:
    await bucket.put("/bkt/dir/image.jpg", b"picture")
    found = inode(bucket, b"bkt", b"dir", b"image.jpg")
    assert bucket.volume.read(found, 0, 100).data == b"picture"
    attr = bucket.volume.getattr(found)
    assert (attr.uid, attr.gid, attr.mode) == (os.getuid(), os.getgid(), 0o100644)
    write_file(bucket, b"note.txt", b"written")
    got = await bucket.get("/bkt/note.txt")
    assert (got.status, got.body) == (200, b"written")
    assert got.headers["content-type"] == "text/plain"
    bucket.volume.unlink(inode(bucket, b"bkt"), b"note.txt")
    assert (await bucket.get("/bkt/note.txt")).status == 404
    await bucket.call("DELETE", "/bkt/dir/image.jpg")
    listed = bucket.volume.list_dir(inode(bucket, b"bkt"), 0, 10)
    assert listed == []


async def test_a_posix_write_changes_etag_and_drops_what_it_falsifies_and_keeps_the_rest(bucket: S3) -> None:
    headers = {"content_type": "text/x", "x_amz_meta_a": "1", "x_amz_checksum_crc32": "NhCmhg=="}
    put = await bucket.put("/bkt/k", b"hello", **headers)
    found = inode(bucket, b"bkt", b"k")
    bucket.volume.write(found, 0, b"j")
    got = await bucket.get("/bkt/k", x_amz_checksum_mode="ENABLED")
    assert got.body == b"jello"
    etag = got.headers["etag"]
    assert etag != put.headers["etag"]
    assert "-" in etag
    assert "x-amz-checksum-crc32" not in got.headers
    assert (got.headers["content-type"], got.headers["x-amz-meta-a"]) == ("text/x", "1")
    assert (await bucket.get("/bkt/k", if_none_match=put.headers["etag"])).status == 200
    assert (await bucket.get("/bkt/k", if_match=put.headers["etag"])).status == 412
    assert (await bucket.get("/bkt/k", if_none_match=etag)).status == 304
    bucket.volume.write(found, 0, b"c")
    assert (await bucket.get("/bkt/k")).headers["etag"] != etag
    listed = await bucket.call("GET", "/bkt", [("list-type", "2")])
    assert listed.texts("ETag") == [(await bucket.get("/bkt/k")).headers["etag"]]
    assert listed.texts("ChecksumAlgorithm") == []


async def test_renames_and_chmod_keep_etag_and_metadata(bucket: S3) -> None:
    put = await bucket.put("/bkt/a/k", b"x", x_amz_meta_m="1")
    top = inode(bucket, b"bkt")
    bucket.volume.rename(top, b"a", top, b"b")
    assert (await bucket.get("/bkt/a/k")).status == 404
    got = await bucket.get("/bkt/b/k")
    assert (got.headers["etag"], got.headers["x-amz-meta-m"]) == (put.headers["etag"], "1")


async def test_overwriting_keeps_owner_and_mode_and_open_files_see_the_old_bytes(bucket: S3) -> None:
    from tonfs.volume import SetAttr

    old = write_file(bucket, b"f", b"old bytes")
    bucket.volume.setattr(old, SetAttr(mode=0o600))
    bucket.volume.hold(old)
    await bucket.put("/bkt/f", b"new")
    assert bucket.volume.read(old, 0, 100).data == b"old bytes"
    bucket.volume.drop(old)
    assert bucket.volume.getattr(inode(bucket, b"bkt", b"f")).mode == 0o100600


async def test_links_fifos_and_bad_names_are_absent_and_hang_nothing(bucket: S3) -> None:
    top = inode(bucket, b"bkt")
    write_file(bucket, b"file", b"x")
    bucket.volume.symlink(top, b"link", b"/etc/passwd", 0, 0)
    bucket.volume.symlink(top, b"up", b"..", 0, 0)
    bucket.volume.create(top, b"fifo", 0o010644, 0, 0)
    bucket.volume.create(top, b"\xff", 0o100644, 0, 0)
    bucket.volume.create(top, b"ctl\x01", 0o100644, 0, 0)
    bucket.volume.link(inode(bucket, b"bkt", b"file"), top, b"hard")
    for key in ("link", "up", "fifo", "link/x", "up/bkt/file"):
        assert (await bucket.call("GET", "/bkt", key=key)).status == 404
        assert (await bucket.call("HEAD", "/bkt", key=key)).status == 404
        assert (await bucket.call("DELETE", "/bkt", key=key)).status == 204
        assert (await bucket.call("PUT", "/bkt", key=key, body=b"x")).status == 409
    listed = await bucket.call("GET", "/bkt", [("list-type", "2"), ("encoding-type", "url")])
    assert listed.texts("Key") == ["ctl%01", "file", "hard"]
    assert (await bucket.get("/bkt/hard")).body == b"x"
    assert b"ctl&#x1;" in (await bucket.call("GET", "/bkt", [("list-type", "2")])).body


async def test_directories_of_the_mount(bucket: S3) -> None:
    top = inode(bucket, b"bkt")
    bucket.volume.mkdir(top, b"empty", 0o755, 0, 0)
    full = bucket.volume.mkdir(top, b"full", 0o755, 0, 0).inode
    bucket.volume.create(full, b"f", 0o100644, 0, 0)
    assert (await bucket.call("GET", "/bkt", [("list-type", "2")])).texts("Key") == ["empty/", "full/f"]
    assert (await bucket.call("HEAD", "/bkt/empty/")).status == 200
    assert (await bucket.call("HEAD", "/bkt/full/")).status == 404
    assert (await bucket.call("DELETE", "/bkt")).code == "BucketNotEmpty"
    assert (await bucket.call("DELETE", "/bkt/full/")).status == 204
    await bucket.call("DELETE", "/bkt/full/f")
    assert bucket.volume.resolve([b"bkt", b"full"]).is_dir, "a directory made by a person is not pruned"
    for key in ("empty/", "full/"):
        assert (await bucket.call("DELETE", "/bkt", key=key)).status == 204
    assert (await bucket.call("DELETE", "/bkt")).status == 204


async def test_top_level_entries_that_are_no_buckets(s3: S3) -> None:
    volume = s3.volume
    volume.create(ROOT, b"file-at-top", 0o100644, 0, 0)
    volume.symlink(ROOT, b"link-at-top", b".", 0, 0)
    for name in (b".hidden", b"My_Folder", b"no space", b"xx"):
        volume.mkdir(ROOT, name, 0o755, 0, 0)
    listed = await s3.get("/")
    assert listed.texts("Name") == ["My_Folder"]
    for path in ("/file-at-top", "/link-at-top", "/.hidden", "/no%20space", "/xx"):
        assert (await s3.get(path)).code == "NoSuchBucket"
    assert (await s3.put("/file-at-top")).code == "BucketAlreadyExists"
    assert (await s3.put("/My_Folder/k", b"x")).status == 200


async def test_uploads_in_progress_are_seen_nowhere(bucket: S3) -> None:
    from tests.s3.test_objects import BODY

    sent = bucket.client.signed("PUT", "/bkt/k", body=BODY) | {"content-length": str(len(BODY))}
    import socket

    host, _, port = bucket.address.rpartition(":")

    def begin() -> socket.socket:
        connection = socket.create_connection((host, int(port)), timeout=20)
        lines = "\r\n".join(f"{name}: {value}" for name, value in sent.items())
        connection.sendall(f"PUT /bkt/k HTTP/1.1\r\n{lines}\r\n\r\n".encode() + BODY[:100_000])
        return connection

    def finish(connection: socket.socket) -> bytes:
        with connection:
            connection.sendall(BODY[100_000:])
            return connection.recv(4096)

    connection = await in_thread(begin)
    assert (await bucket.call("GET", "/bkt", [("list-type", "2")])).texts("Key") == []
    assert bucket.volume.list_dir(inode(bucket, b"bkt"), 0, 10) == []
    assert [e.name for e in bucket.volume.list_dir(ROOT, 0, 10)] == [b"bkt"]
    assert b" 200 " in await in_thread(partial(finish, connection))
    assert (await bucket.get("/bkt/k")).body == BODY


async def test_a_file_that_is_written_during_a_get_is_never_sent_mixed(bucket: S3) -> None:
    """The answer is the whole old object, the whole new one, or visibly broken off."""
    import http.client

    size = 24 << 20
    found = write_file(bucket, b"f", b"a" * size)
    sent = bucket.client.signed("GET", "/bkt/f")
    changed = trio.Event()

    def read() -> tuple[int, bytes, bool]:
        connection = http.client.HTTPConnection(bucket.address, timeout=30)
        try:
            connection.request("GET", "/bkt/f", headers=sent)
            answer = connection.getresponse()
            head = answer.read(1000)
            trio.from_thread.run(changed.wait)
            try:
                return answer.status, head + answer.read(), True
            except (http.client.IncompleteRead, ConnectionResetError):
                return answer.status, head, False
        finally:
            connection.close()

    async def change() -> None:
        await trio.sleep(0.2)
        bucket.volume.write(found, size - 1000, b"b" * 1000)
        changed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        status, data, whole = await in_thread(read)
    assert status == 200
    assert not whole or len(data) < size or data == b"a" * size
    after = await bucket.get("/bkt/f")
    assert after.body == b"a" * (size - 1000) + b"b" * 1000


# Evicted objects.


async def evict_all(s3: S3) -> Packer:
    packer = Packer()
    await trio.to_thread.run_sync(packer.pack_all, s3.volume)
    files = [e.attr.inode for e in s3.volume.list_sorted(inode(s3, b"bkt")) if e.attr.is_file]
    evicted = await trio.to_thread.run_sync(s3.volume.evict, files)
    assert evicted.files == len(files)
    return packer


async def test_evicted_objects_are_fetched_on_get(bucket: S3) -> None:
    body = os.urandom(3_000_000)
    put = await bucket.put("/bkt/k", body)
    packer = await evict_all(bucket)

    async def bring(ranges: list[RemoteRange]) -> None:
        for where in ranges:
            data = packer.packs[where.bag_id][where.pack_offset : where.pack_offset + where.length]
            assert bucket.volume.fill(where, where.offset, data)

    bucket.on_fetch = bring
    head = await bucket.call("HEAD", "/bkt/k")
    assert (head.status, head.headers["etag"]) == (200, put.headers["etag"])
    assert bucket.fetches == [], "attributes need no bytes"
    part = await bucket.get("/bkt/k", range="bytes=2000000-2000099")
    assert (part.status, part.body) == (206, body[2_000_000:2_000_100])
    got = await bucket.get("/bkt/k")
    assert (got.status, got.body) == (200, body)
    assert got.headers["etag"] == put.headers["etag"] == f'"{hashlib.md5(body).hexdigest()}"'


@pytest.mark.parametrize("error", [TimedOut("late"), PeerUnreachable("nobody")])
async def test_bytes_that_do_not_come_are_a_503_and_never_zeros(bucket: S3, error: Exception) -> None:
    await bucket.put("/bkt/k", os.urandom(100_000))
    await evict_all(bucket)

    async def fail(ranges: list[RemoteRange]) -> None:
        raise error

    bucket.on_fetch = fail
    got = await bucket.get("/bkt/k")
    assert (got.status, got.code) == (503, "ServiceUnavailable")
    assert got.headers["retry-after"]
    assert (await bucket.put("/bkt/k", b"new")).status == 200
    assert (await bucket.get("/bkt/k")).body == b"new"


async def test_an_answer_whose_bytes_stop_coming_is_cut(bucket: S3) -> None:
    import http.client

    body = os.urandom(4 << 20)
    await bucket.put("/bkt/k", body)
    packer = await evict_all(bucket)

    async def bring_the_first(ranges: list[RemoteRange]) -> None:
        for where in ranges:
            if where.offset > 2 << 20:
                raise TimedOut("late")
            data = packer.packs[where.bag_id][where.pack_offset : where.pack_offset + where.length]
            assert bucket.volume.fill(where, where.offset, data)

    bucket.on_fetch = bring_the_first
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        await bucket.get("/bkt/k")


# Durability and life.


async def test_what_a_put_or_delete_acknowledged_survives_a_kill(bucket: S3, tmp_path: Any) -> None:
    body = os.urandom(500_000)
    await bucket.put("/bkt/dir/k", body, x_amz_meta_a="1")
    await bucket.put("/bkt/gone", b"x")
    await bucket.call("DELETE", "/bkt/gone")
    await bucket.put("/bkt/marker/")
    with bucket.volume.lock:
        copy = crash_copy(bucket.directory, tmp_path / "after the kill")
    volume = Volume(copy)
    try:
        check(volume)
        found = volume.resolve([b"bkt", b"dir", b"k"])
        assert volume.read(found.inode, 0, len(body)).data == body
        record = volume.record(found.inode)
        assert record is not None
        assert record.etag == hashlib.md5(body).hexdigest()
        assert record.metadata == {"a": "1"}
        names = [entry.sort_key for entry in volume.list_sorted(volume.resolve([b"bkt"]).inode)]
        assert names == [b"dir/", b"marker/"]
    finally:
        volume.close()


async def test_what_an_upload_acknowledged_survives_a_kill(bucket: S3, tmp_path: Any) -> None:
    bodies = [os.urandom(MIN_PART), b"last"]
    upload = await begin(bucket)
    tags = [(n, (await part(bucket, upload, n, body)).headers["etag"]) for n, body in enumerate(bodies, 1)]
    with bucket.volume.lock:
        before = crash_copy(bucket.directory, tmp_path / "before")
    assert (await complete(bucket, upload, wish(tags))).status == 200
    with bucket.volume.lock:
        after = crash_copy(bucket.directory, tmp_path / "after")
    first = Volume(before)
    try:
        check(first)
        assert [part.size for part in first.upload_parts(upload)] == [len(body) for body in bodies]
        assert first.is_empty(first.resolve([b"bkt"]).inode)
    finally:
        first.close()
    second = Volume(after)
    try:
        check(second)
        found = second.resolve([b"bkt", b"k"])
        assert second.read(found.inode, 0, found.size).data == b"".join(bodies)
        assert [part.size for part in second.object_parts(found.inode)] == [len(body) for body in bodies]
        done = second.upload(upload).done
        assert done is not None
        assert f'"{done["etag"]}"' == etag_of(*bodies)
    finally:
        second.close()


async def test_a_port_that_is_taken_is_said_so(s3: S3) -> None:
    with pytest.raises(BaseExceptionGroup) as error:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_s3, s3.volume, s3.address, "us-east-1", s3.keys, s3.fetch)
    assert error.group_contains(Busy)


async def test_the_door_closes_while_a_client_is_slow(s3: S3) -> None:
    import socket

    await s3.put("/bkt")
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            url: str = await nursery.start(serve_s3, s3.volume, "127.0.0.1:0", "us-east-1", s3.keys, s3.fetch)
            address = url.removeprefix("http://")
            host, _, port = address.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=5) as slow:
                slow.sendall(b"PUT /bkt/k HTTP/1.1\r\nHost: x\r\nContent-Le")
                await trio.sleep(0.1)
                nursery.cancel_scope.cancel()


# Evicted bytes.


async def evicted(s3: S3, *keys: bytes) -> Packer:
    """Pack everything, prove it, and give the local copies of these keys up."""
    packer = Packer()
    packer.pack_all(s3.volume)

    async def bring(ranges: Sequence[RemoteRange]) -> None:
        for where in ranges:
            data = packer.packs[where.bag_id][where.pack_offset : where.pack_offset + where.length]
            await trio.to_thread.run_sync(s3.volume.fill, where, where.offset, data)

    s3.on_fetch = bring
    gone = s3.volume.evict([s3.volume.resolve([b"bkt", *key.split(b"/")]).inode for key in keys])
    assert gone.files == len(keys)
    return packer


async def test_what_an_object_is_does_not_change_with_eviction(bucket: S3) -> None:
    put = await bucket.put("/bkt/k", b"x" * 9000, x_amz_meta_m="1", x_amz_tagging="a=b", content_type="text/x")
    before = (await bucket.call("HEAD", "/bkt/k")).headers
    await evicted(bucket, b"k")
    after = (await bucket.call("HEAD", "/bkt/k")).headers
    for name in ("etag", "last-modified", "content-length", "content-type", "x-amz-meta-m", "x-amz-tagging-count"):
        assert after[name] == before[name]
    assert (await bucket.get("/bkt/k", if_none_match=put.headers["etag"])).status == 304
    listed = await bucket.call("GET", "/bkt", [("list-type", "2")])
    assert (listed.texts("ETag"), listed.texts("Size")) == ([put.headers["etag"]], ["9000"])
    assert bucket.fetches == [], "nobody needed its bytes"
    assert (await bucket.get("/bkt/k", range="bytes=0-9")).body == b"x" * 10


async def test_copies_of_evicted_objects(bucket: S3) -> None:
    await bucket.put("/bkt/md5", b"known" * 2000)
    top = inode(bucket, b"bkt")
    made = bucket.volume.create(top, b"posix", 0o100644, 0, 0)
    bucket.volume.write(made.inode, 0, b"unknown" * 2000)
    await evicted(bucket, b"md5", b"posix")
    for key, body, fetched in (("md5", b"known" * 2000, False), ("posix", b"unknown" * 2000, True)):
        bucket.fetches.clear()
        done = await bucket.call("PUT", "/bkt/copy", headers={"x-amz-copy-source": f"bkt/{key}"})
        assert (done.status, bool(bucket.fetches)) == (200, fetched), "bytes are needed for a digest only"
        got = await bucket.get("/bkt/copy")
        assert (got.body, got.headers["etag"]) == (body, f'"{hashlib.md5(body).hexdigest()}"')


async def test_a_copy_and_its_source_go_separate_ways(bucket: S3) -> None:
    await bucket.put("/bkt/a", b"x" * 100_000)
    await bucket.call("PUT", "/bkt/b", headers={"x-amz-copy-source": "bkt/a"})
    bucket.volume.write(inode(bucket, b"bkt", b"a"), 5, b"changed")
    bucket.volume.truncate(inode(bucket, b"bkt", b"a"), 50)
    assert (await bucket.get("/bkt/b")).body == b"x" * 100_000
    assert (await bucket.call("DELETE", "/bkt/a")).status == 204
    assert (await bucket.get("/bkt/b")).body == b"x" * 100_000
    check(bucket.volume)


@pytest.mark.parametrize(
    "key", ["a//b", "/a", "a/../b", "./a", "..", "a/.", "x" * 256, "a\0b", "\udcff", "\udcc0\udcaf"]
)
async def test_keys_that_cannot_be_files_are_refused_on_every_verb(bucket: S3, key: str) -> None:
    await bucket.put("/bkt/source", b"x")
    codes = {"KeyTooLongError" if len(key) > 255 else "InvalidArgument"}
    seen = set()
    for method, query, headers in (
        ("PUT", [], {}),
        ("GET", [], {}),
        ("DELETE", [], {}),
        ("PUT", [], {"x-amz-copy-source": "bkt/source"}),
        ("POST", [("uploads", "")], {}),
        ("GET", [("tagging", "")], {}),
        ("GET", [("acl", "")], {}),
        ("DELETE", [("tagging", "")], {}),
        ("GET", [("attributes", "")], {"x-amz-object-attributes": "ETag"}),
    ):
        answer = await bucket.call(method, "/bkt", query, headers=headers, key=key)
        assert answer.status == 400
        seen.add(answer.code)
    assert (await bucket.call("HEAD", "/bkt", key=key)).status == 400
    assert seen == codes
    if key.isprintable() and "\0" not in key:
        listed = await bucket.call("GET", "/bkt", [("list-type", "2"), ("prefix", key)])
        assert (listed.status, listed.texts("Key")) == (200, [])
