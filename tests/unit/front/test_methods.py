from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tonfs.errors import NotFound, Refused, UsageError
from tonfs.front.methods import Methods
from tonfs.ids import Inode
from tonfs.volume import ROOT, Volume

Call = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    volume = Volume(tmp_path)
    yield volume
    volume.close()


@pytest.fixture
def stop() -> trio.Event:
    return trio.Event()


@pytest.fixture
def call(volume: Volume, stop: trio.Event) -> Call:
    methods = Methods(volume, lambda: {"path": "/mnt/x", "alive": True}, lambda: {"url": None, "alive": False}, stop)
    handlers = methods.handlers()

    async def ask(method: str, **params: Any) -> dict[str, Any]:
        import json

        answer: dict[str, Any] = json.loads(json.dumps(await handlers[method](params)))
        return answer

    return ask


def write(volume: Volume, name: bytes, data: bytes, parent: Inode = ROOT) -> Inode:
    inode = volume.create(parent, name, 0o644, 0, 0).inode
    volume.write(inode, 0, data)
    return inode


async def pack(call: Call, proven: int = 5) -> str:
    """What the agent does."""
    work = await call("dirty", settle=0, limit_bytes=1 << 30, force=True)
    data, extents = b"", []
    for item in work["files"]:
        ranges = []
        for (offset, length), (path, place) in zip(item["ranges"], item["sources"], strict=True):
            ranges.append([offset, length, len(data)])
            data += Path(path).read_bytes()[place : place + length]
        extents.append({"inode": item["inode"], "version": item["version"], "ranges": ranges})
    bag = hashlib.sha256(data).hexdigest()
    done = await call("commit_pack", bag_id=bag, size=len(data), extents=extents)
    assert not done["stale"]
    state = {"bag_id": bag, "proven": proven, "wanted": 5, "proved_at": 1_600_000_000.5}
    await call("pack_states", packs=[state])
    return bag


async def test_a_file_from_dirty_to_evicted(call: Call, volume: Volume) -> None:
    folder = volume.mkdir(ROOT, b"d", 0o755, 0, 0).inode
    inode = write(volume, b"\xff", b"abc", folder)
    work = await call("dirty", settle=0.0, limit_bytes=1, force=True)
    (item,) = work["files"]
    assert item["path"] == os.fsdecode(b"d/\xff")
    assert item["ranges"] == [[0, 3]]
    status = await call("status")
    assert status["files"] == {"total": 1, "empty": 0, "dirty": 1, "packed": 0, "proven": 0}
    assert status["bytes"] == {"logical": 3, "local": 3, "dirty": 3, "proven": 0}
    assert status["dirty_oldest"] == work["oldest"]
    assert status["damaged"] == {"total": 0, "paths": []}
    bag = await pack(call, proven=4)
    assert (await call("status"))["files"]["packed"] == 1
    assert volume.get_xattr(inode, b"user.tonfs.proved-at") == b"2020-09-13T12:26:40Z"
    kept = await call("evict", paths=[""])
    assert kept["kept"] == [{"path": os.fsdecode(b"d/\xff"), "why": "4 of 5 replicas are proven"}]
    await call("pack_states", packs=[{"bag_id": bag, "proven": 5, "wanted": 5}])
    done = await call("evict", paths=["d"])
    assert (done["files"], done["bytes"], done["bag_ids"], done["kept"]) == (1, 3, [bag], [])
    why = await call("why", path=os.fsdecode(b"/mnt/x/d/\xff"))
    assert (why["inode"], why["state"], why["local_bytes"]) == (inode, "proven", 0)
    assert why["ranges"] == [
        {"offset": 0, "length": 3, "kind": "proven", "local": False, "bag_id": bag, "pack_offset": 0,
         "proven": 5, "wanted": 5}
    ]  # fmt: skip
    (row,) = (await call("packs"))["packs"]
    assert (row["bag_id"], row["live"], row["files"], row["size"]) == (bag, 3, 1, 3)


async def test_resolve_names_bags_dirty_bytes_and_what_is_missing(call: Call, volume: Volume) -> None:
    write(volume, b"a", b"abc")
    bag = await pack(call)
    write(volume, b"b", b"12")
    assert await call("resolve", paths=["a"]) == {"bag_ids": [bag], "dirty_files": 0, "dirty_bytes": 0, "missing": []}
    both = await call("resolve", paths=["/mnt/x/a", "b", "no/where"])
    assert both == {"bag_ids": [bag], "dirty_files": 1, "dirty_bytes": 2, "missing": ["no/where"]}
    assert await call("resolve", paths=[]) == {"bag_ids": [bag], "dirty_files": 1, "dirty_bytes": 2, "missing": []}


async def test_a_pack_goes_when_nothing_refers_to_it(call: Call, volume: Volume) -> None:
    write(volume, b"a", b"abc")
    bag = await pack(call)
    with pytest.raises(Refused):
        await call("drop_pack", bag_id=bag)
    volume.unlink(ROOT, b"a")
    assert (await call("packs"))["packs"][0]["live"] == 0
    assert await call("drop_pack", bag_id=bag) == {"known": True}
    assert await call("drop_pack", bag_id=bag) == {"known": False}


async def test_why_of_other_things(call: Call, volume: Volume) -> None:
    inode = volume.create(ROOT, b"f", 0o644, 0, 0).inode
    volume.truncate(inode, 1 << 20)
    volume.write(inode, 0, b"x")
    assert [r["kind"] for r in (await call("why", path="f"))["ranges"]] == ["dirty"]
    await pack(call)
    assert [r["kind"] for r in (await call("why", path="f"))["ranges"]] == ["proven", "zeros"]
    assert (await call("why", path=""))["state"] == "metadata"
    with pytest.raises(NotFound):
        await call("why", path="g")
    with pytest.raises(NotFound):
        await call("evict", paths=["g"])


async def test_shutdown_commit_and_ping(call: Call, stop: trio.Event, volume: Volume) -> None:
    write(volume, b"a", b"abc")
    await call("commit")
    assert not volume.pending
    assert (await call("ping"))["pid"] == os.getpid()
    await call("shutdown")
    assert stop.is_set()


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("dirty", {}),
        ("dirty", {"settle": "x", "limit_bytes": 1}),
        ("dirty", {"settle": 1, "limit_bytes": True}),
        ("commit_pack", {"bag_id": "00", "size": 1, "extents": []}),
        ("commit_pack", {"bag_id": "0" * 64, "size": 1, "extents": [{"inode": 1}]}),
        ("commit_pack", {"bag_id": "0" * 64, "size": 1, "extents": [{"inode": 1, "version": 1, "ranges": [[1, 2]]}]}),
        ("commit_pack", {"bag_id": "0" * 64, "size": 1, "extents": "x"}),
        ("pack_states", {"packs": [{}]}),
        ("pack_states", {"packs": [3]}),
        ("drop_pack", {}),
        ("resolve", {"paths": "x"}),
        ("resolve", {"paths": [1]}),
        ("evict", {}),
        ("why", {"path": 3}),
    ],
)
async def test_malformed_questions_are_refused(call: Call, method: str, params: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        await call(method, **params)
