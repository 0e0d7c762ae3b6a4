"""What a door does beside the protocol: it forgets old uploads, and says where an object's bytes are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from tests.s3.conftest import S3
from tests.s3.test_multipart import begin, part
from tests.unit.volume.helpers import Packer
from tonfs.clock import Clock, SystemClock
from tonfs.s3shim import handlers_upload
from tonfs.s3shim.app import serve_s3
from tonfs.s3shim.features import DAY, Features


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


async def test_there_is_a_limit_to_open_uploads(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers_upload, "MAX_OPEN", 2)
    await s3.put("/bkt")
    uploads = [await begin(s3), await begin(s3)]
    assert (await s3.call("POST", "/bkt/k", [("uploads", "")])).code == "InvalidRequest"
    await s3.call("DELETE", "/bkt/k", [("uploadId", uploads[0])])
    await begin(s3)


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
