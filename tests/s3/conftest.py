"""A volume with an S3 door on loopback, in the test's own trio loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from tests.s3.signer import Client, Response
from tonfs.cli.init import make_volume
from tonfs.s3shim.app import serve_s3
from tonfs.s3shim.keys import KeyStore, Rights
from tonfs.volume import RemoteRange, Volume

T = TypeVar("T")


@dataclass
class S3:
    """The door under test."""

    volume: Volume
    directory: Path
    keys: KeyStore
    address: str = ""
    fetches: list[Sequence[RemoteRange]] = field(default_factory=list)
    on_fetch: Callable[[Sequence[RemoteRange]], Any] | None = None
    client: Client = field(default_factory=lambda: Client(""))

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    async def fetch(self, ranges: Sequence[RemoteRange]) -> None:
        self.fetches.append(ranges)
        assert self.on_fetch is not None, "nothing is remote in this test"
        await self.on_fetch(ranges)

    def new_client(self, bucket: str = "", rights: Rights = Rights.ADMIN) -> Client:
        key = self.keys.new(bucket, rights)
        return Client(self.address, key.access_key, key.secret_key.reveal().decode())

    async def call(self, *args: Any, **kwargs: Any) -> Response:
        """One signed request with the door's own client."""
        return await in_thread(partial(self.client.request, *args, **kwargs))

    async def put(self, path: str, body: bytes = b"", **headers: str) -> Response:
        names = {k.replace("_", "-"): v for k, v in headers.items()}
        return await self.call("PUT", path, headers=names, body=body)

    async def get(self, path: str, **headers: str) -> Response:
        return await self.call("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})


async def in_thread(function: Callable[[], T]) -> T:
    """Run a blocking client outside the loop, for a minute at most."""
    with trio.fail_after(60):
        return await trio.to_thread.run_sync(function)


@pytest.fixture
async def s3(tmp_path: Path) -> AsyncIterator[S3]:
    directory = tmp_path / "volume"
    make_volume(directory, network="none")
    volume = Volume(directory)
    door = S3(volume, directory, KeyStore(directory / "keys"))

    async def background() -> None:
        while True:
            await trio.sleep(0.05)
            await trio.to_thread.run_sync(volume.background)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(background)
        url: str = await nursery.start(serve_s3, volume, "127.0.0.1:0", "us-east-1", door.keys, door.fetch)
        door.address = url.removeprefix("http://")
        door.client = door.new_client()
        yield door
        nursery.cancel_scope.cancel()
    volume.close()
