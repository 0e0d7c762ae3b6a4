"""An agent for the front's tests: has the packs' bytes and gives them when asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from tonfs.errors import PeerUnreachable, TonfsError
from tonfs.ids import BagId


class FakeAgent:
    """`call` as `ControlClient.call`; `handlers()` for a real socket."""

    def __init__(self, volume: Path, packs: Mapping[BagId, bytes]) -> None:
        self.volume = volume
        self.packs = packs
        self.asked: list[tuple[int, int]] = []
        self.delay = 0.0
        self.errors: list[TonfsError] = []
        """Raised by the next calls, one each."""

    async def call(self, method: str, params: dict[str, Any] | None = None, *, timeout: float = 30.0) -> dict[str, Any]:
        assert method == "fetch"
        return await self.fetch(params or {})

    async def fetch(self, params: dict[str, Any]) -> dict[str, Any]:
        if self.errors:
            raise self.errors.pop(0)
        await trio.sleep(self.delay)
        bag = BagId(bytes.fromhex(params["bag_id"]))
        offset, length = params["offset"], params["length"]
        self.asked.append((offset, length))
        if bag not in self.packs:
            raise PeerUnreachable("Nobody has the bag.")
        data = self.packs[bag]
        assert 0 <= offset < offset + length <= len(data)
        path = self.volume / "packs" / params["bag_id"] / "files" / "pack" / "data"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if path.exists() else "wb") as stream:
            stream.seek(offset)
            stream.write(data[offset : offset + length])
        return {}

    async def ping(self, params: dict[str, Any]) -> dict[str, Any]:
        return {}

    def handlers(self) -> dict[str, Any]:
        return {"fetch": self.fetch, "ping": self.ping}
