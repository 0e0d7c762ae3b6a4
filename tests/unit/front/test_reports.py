"""Reports of front and agent together, and the commands that `.tonfs` takes."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.unit.volume.helpers import Packer
from tonfs.errors import FsError, NotRunning
from tonfs.front.methods import Methods
from tonfs.front.reports import Reports
from tonfs.ids import Inode
from tonfs.volume import ROOT, RemoteRange, Volume

PLACEMENT = {"provider": "aa", "state": "active"}


class Agent:
    """Answers `status`; remembers the rest."""

    def __init__(self, packs: list[dict[str, Any]]) -> None:
        self.packs = packs
        self.asked: list[str] = []
        self.alive = True

    async def call(self, method: str, params: dict[str, Any] | None = None, *, timeout: float = 30.0) -> dict[str, Any]:
        if not self.alive:
            raise NotRunning("The agent does not run.")
        if method == "status":
            return {"packs": self.packs, "providers": [{"key": "aa"}], "queue": {"transfers": 1, "bytes": 9}}
        self.asked.append(method)
        return {}


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    volume = Volume(tmp_path)
    yield volume
    volume.close()


def put(volume: Volume, name: bytes, data: bytes) -> Inode:
    inode = volume.create(ROOT, name, 0o644, 0, 0).inode
    volume.write(inode, 0, data)
    return inode


class World:
    """A volume with a packed file, reports, and a fetch that brings bytes out of the packer."""

    def __init__(self, volume: Volume, network: str = "devnet") -> None:
        self.volume = volume
        self.packer = Packer()
        self.file = put(volume, b"f", b"packed bytes")
        self.packer.pack_all(volume)
        (bag,) = self.packer.packs
        self.bag = bag
        self.agent = Agent([{"bag_id": bag.hex(), "size": 12, "wanted": 2, "placements": [PLACEMENT]}])
        methods = Methods(volume, lambda: {"path": "/m", "alive": True}, lambda: {"url": None, "alive": False},
                          trio.Event())  # fmt: skip
        agent = self.agent if network != "none" else None
        self.reports = Reports(volume, network, methods, agent, self.fetch, 5.0)

    async def fetch(self, missing: Any) -> None:
        for where in missing:
            assert isinstance(where, RemoteRange)
            data = self.packer.packs[where.bag_id][where.pack_offset : where.pack_offset + where.length]
            assert self.volume.fill(where, where.offset, data)


async def test_reports_join_what_front_and_agent_say(volume: Volume) -> None:
    world = World(volume)
    put(volume, b"new", b"x" * 7)
    status = json.loads(json.dumps(await world.reports.report("status")))
    assert (status["schema"], status["files"]["total"], status["providers"]) == ("tonfs.status/1", 2, [{"key": "aa"}])
    queue = await world.reports.report("queue")
    assert queue["dirty"] == {"files": 1, "bytes": 7}
    assert queue["packs"] == [{"bag_id": world.bag.hex(), "size": 12, "wanted": 2, "states": {"active": 1}}]
    assert (await world.reports.report("providers"))["providers"] == [{"key": "aa"}]
    why = await world.reports.why(world.file)
    assert why["path"] == "f"
    assert why["ranges"][0]["placements"] == [PLACEMENT]


async def test_without_an_agent_reports_say_so(volume: Volume) -> None:
    world = World(volume)
    world.agent.alive = False
    status = await world.reports.report("status")
    assert status["agent"]["alive"] is False
    assert "agent does not run" in status["problems"][0]["text"]
    assert (await world.reports.why(world.file))["ranges"][0]["placements"] == []


async def test_evict_and_fetch_are_commands_on_paths(volume: Volume) -> None:
    world = World(volume)
    await world.reports.command("evict", b"", ROOT)
    assert volume.read(world.file, 0, 100).missing
    assert world.agent.asked == ["drop_local"]
    await world.reports.command("fetch", b"", world.file)
    assert volume.read(world.file, 0, 100).data == b"packed bytes"


async def test_what_cannot_go_is_busy(volume: Volume) -> None:
    world = World(volume)
    inode = put(volume, b"new", b"only here")
    with pytest.raises(FsError, match="not packed yet") as caught:
        await world.reports.command("evict", b"", inode)
    assert caught.value.errno == errno.EBUSY


async def test_flush_goes_to_the_agent(volume: Volume) -> None:
    world = World(volume)
    for name in ("flush", "pause", "resume"):
        await world.reports.command(name, b"1", None)
    assert world.agent.asked == ["flush", "pause", "resume"]


@pytest.mark.parametrize(("name", "on_a_path"), [("flush", True), ("evict", False), ("format", True), ("", False)])
async def test_other_commands_are_refused(name: str, on_a_path: bool, volume: Volume) -> None:
    world = World(volume)
    with pytest.raises(FsError, match="no command") as caught:
        await world.reports.command(name, b"1", world.file if on_a_path else None)
    assert caught.value.errno == errno.EOPNOTSUPP


async def test_a_command_that_takes_too_long_ends_with_its_deadline(volume: Volume) -> None:
    world = World(volume)
    volume.evict([world.file])
    world.reports._deadline = 0.2

    async def never(_missing: Any) -> None:
        await trio.sleep_forever()

    world.reports._fetch = never
    with pytest.raises(FsError, match="not done yet") as caught:
        await world.reports.command("fetch", b"", ROOT)
    assert caught.value.errno == errno.ETIMEDOUT
