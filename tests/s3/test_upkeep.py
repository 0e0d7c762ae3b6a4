"""What a door does beside the protocol: it forgets old uploads, and says where an object's bytes are."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest
import trio

from tests.s3.conftest import S3, in_thread
from tests.s3.raw import answer, connect, head
from tests.s3.test_multipart import begin, part
from tests.unit.volume.helpers import Packer
from tonfs.clock import Clock, SystemClock
from tonfs.s3shim.app import serve_s3
from tonfs.s3shim.features import DAY, Features
from tonfs.volume import Statfs


class Later(SystemClock):
    """The same clock, some seconds ahead."""

    def __init__(self, ahead: float) -> None:
        self._ahead = ahead

    def now(self) -> float:
        return super().now() + self._ahead


@asynccontextmanager
async def another_door(s3: S3, features: Features, clock: Clock | None = None) -> AsyncIterator[None]:
    """On the same volume; `s3` talks to this one."""
    async with trio.open_nursery() as nursery:
        serve = partial(serve_s3, features=features, clock=clock)
        url = await nursery.start(serve, s3.volume, "127.0.0.1:0", "us-east-1", s3.keys, s3.fetch)
        s3.client.host = url.partition("//")[2]
        yield
        nursery.cancel_scope.cancel()


async def test_uploads_that_nobody_completes_go_after_a_while(s3: S3) -> None:
    await s3.put("/bkt")
    upload = await begin(s3)
    await part(s3, upload, 1, b"data")
    at_home = s3.client.host
    for days, left in ((6.9, [upload]), (7.1, [])):
        async with another_door(s3, Features(), Later(days * DAY)):
            with trio.fail_after(20):
                while len(s3.volume.list_uploads(s3.volume.resolve([b"bkt"]).inode)) > len(left):
                    await trio.sleep(0.01)
        s3.client.host = at_home
        assert (await s3.call("GET", "/bkt", [("uploads", "")])).texts("UploadId") == left


async def test_there_is_a_limit_to_open_uploads(s3: S3) -> None:
    await s3.put("/bkt")
    async with another_door(s3, Features(open_uploads=2)):
        uploads = [await begin(s3), await begin(s3)]
        assert (await s3.call("POST", "/bkt/k", [("uploads", "")])).code == "InvalidRequest"
        await s3.call("DELETE", "/bkt/k", [("uploadId", uploads[0])])
        await begin(s3)


class SmallDisk:
    """What parts do not take of it is free."""

    def __init__(self, s3: S3, size: int) -> None:
        self._real, self._volume, self._size = s3.volume.statfs(), s3.volume, size

    def __call__(self) -> Statfs:
        return replace(self._real, block_size=1, available=self._size - self._volume.parts_bytes())


async def test_parts_that_nobody_completes_take_a_share_of_the_disk_at_most(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    await s3.put("/bkt")
    await s3.put("/bkt/source", b"s" * 1000)
    monkeypatch.setattr(s3.volume, "statfs", SmallDisk(s3, 10_000))
    async with another_door(s3, Features(parts_share=0.5)):
        first, second = await begin(s3), await begin(s3)
        assert (await part(s3, first, 1, b"a" * 3000)).status == 200
        assert (await part(s3, second, 1, b"b" * 2000)).status == 200
        full = await part(s3, second, 2, b"c")
        assert (full.status, full.code) == (403, "QuotaExceeded")
        query = [("partNumber", "3"), ("uploadId", second)]
        copied = await s3.call("PUT", "/bkt/k", query, {"x-amz-copy-source": "/bkt/source"})
        assert copied.code == "QuotaExceeded"
        assert (await s3.put("/bkt/other", b"d" * 4000)).status == 200, "objects are not parts"
        await s3.call("DELETE", "/bkt/k", [("uploadId", first)])
        assert s3.volume.parts_bytes() == 2000
        assert (await part(s3, second, 1, b"b" * 2500)).status == 200
        assert s3.volume.parts_bytes() == 2500, "a part that is sent again replaces the first"
        assert (await part(s3, second, 2, b"c" * 2500)).status == 200
        assert (await part(s3, second, 3, b"c")).status == 403


async def test_parts_on_their_way_count(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3.volume, "statfs", SmallDisk(s3, 4_000_000))
    await s3.put("/bkt")
    async with another_door(s3, Features(parts_share=0.5)):
        upload = await begin(s3)
        target, body = f"/bkt/k?partNumber=1&uploadId={upload}", b"a" * 1_500_000
        query = [("partNumber", "1"), ("uploadId", upload)]
        signed = s3.client.signed("PUT", "/bkt/k", query, {"expect": "100-continue"}, body)

        def begin_to_send() -> socket.socket:
            connection = connect(s3.client.host)
            connection.sendall(head("PUT", target, signed | {"content-length": str(len(body))}))
            assert b"100 Continue" in connection.recv(100)
            return connection

        with await in_thread(begin_to_send) as connection:
            assert (await part(s3, upload, 2, b"b" * 1_000_000)).code == "QuotaExceeded"
            await in_thread(lambda: connection.sendall(body))
            assert (await in_thread(lambda: answer(connection))).status == 200
        assert (await part(s3, upload, 2, b"b" * 400_000)).status == 200


async def test_headers_say_how_far_the_replicas_are(s3: S3) -> None:
    await s3.put("/bkt")
    await s3.put("/bkt/k", b"data")
    assert "x-amz-replication-status" not in (await s3.get("/bkt/k")).headers
    async with another_door(s3, Features(replicated=True, show_state=True)):
        fresh = await s3.call("HEAD", "/bkt/k")
        assert fresh.headers["x-amz-replication-status"] == "PENDING"
        assert fresh.headers["x-amz-meta-tonfs-state"] == "dirty"
        packer = Packer()
        packer.pack_all(s3.volume, proven=5)
        proven = await s3.call("HEAD", "/bkt/k")
        assert proven.headers["x-amz-replication-status"] == "COMPLETED"
        shown = [proven.headers[f"x-amz-meta-tonfs-{word}"] for word in ("state", "replicas", "bag")]
        assert shown == ["proven", "5", next(iter(packer.packs)).hex()]
        got = await s3.get("/bkt/k")
        assert (got.headers["x-amz-replication-status"], "x-amz-meta-tonfs-state" in got.headers) == (
            "COMPLETED",
            False,
        )


async def test_a_bucket_may_ask_for_its_own_number_of_replicas(s3: S3) -> None:
    """As the packer and the replicator see it, and as a client does."""
    await s3.put("/bkt")
    await s3.put("/other")
    s3.volume.set_xattr(s3.volume.resolve([b"bkt"]).inode, b"user.tonfs.policy.replicas", b"2")
    for key in ("a", "a/b", "dir/"):
        assert (await s3.put(f"/bkt/{key}", key.encode())).status == 200
    await s3.put("/other/k", b"data")
    async with another_door(s3, Features(replicated=True)):
        packer = Packer()
        report = await trio.to_thread.run_sync(lambda: s3.volume.dirty(0.0, 1 << 30, force=True))
        assert (report.replicas, len(report.files)) == (2, 3)
        packer.pack_all(s3.volume)
        assert s3.volume.dirty(0.0, 1 << 30, force=True).replicas is None
        (pack,) = s3.volume.packs()
        assert (pack.asked.most, pack.asked.unsaid) == (2, False)
        for proven, told in ((1, "PENDING"), (2, "COMPLETED")):
            s3.volume.pack_states([(pack.bag_id, proven, pack.asked.most)])
            for key in ("a", "a/b", "dir/"):
                head = await s3.call("HEAD", f"/bkt/{key}")
                assert head.headers["x-amz-replication-status"] == told
