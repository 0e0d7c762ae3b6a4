"""What every `Seeder` must do (our node, the fake daemon behind the adapter), and what is particular to a daemon."""

from __future__ import annotations

import base64
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.fakes.control_port import ControlPort
from tests.fakes.tonutils_api import TonutilsApi
from tests.unit.network.swarm_kit import Host, World
from tonfs.bagfiles import CreatedBag, StoredBag, create_bag
from tonfs.errors import BadPacket, NotFound, NotRunning, PeerUnreachable, Refused, TimedOut, TonfsError, UsageError
from tonfs.ids import BagId
from tonfs.network import tl, tonutils_daemon
from tonfs.network.api import Seeder
from tonfs.network.backed_net import BackedNet
from tonfs.network.given_bags import GivenBags
from tonfs.network.keys import KeyPair, boxed_public
from tonfs.network.storage_daemon import PRIVATE_ED25519, QUERY_ERROR, StorageDaemon, no_error, storage_daemon_of
from tonfs.network.tonutils_daemon import TonutilsDaemon, daemon_of, parse_answer

PIECE = 1 << 17


@pytest.fixture
async def world(nursery: trio.Nursery, tmp_path: Path) -> World:
    return World(nursery, tmp_path)


def bag_of(folder: Path, seed: int = 1, size: int = 400_000) -> CreatedBag:
    folder.mkdir(parents=True)
    for name in ("b", "a"):
        (folder / name).write_bytes(random.Random(seed).randbytes(size))
    return create_bag(folder, description=b"about")


@asynccontextmanager
async def fake_daemon(host: Host) -> AsyncIterator[TonutilsApi]:
    """The daemon's API in front of a node of ours; it seeds in the test's own loop."""
    token = trio.lowlevel.current_trio_token()

    def start(bag: BagId, directory: Path) -> None:
        trio.from_thread.run(host.node.seed, bag, directory, trio_token=token)

    def stop(bag: BagId) -> None:
        trio.from_thread.run(host.node.forget, bag, trio_token=token)

    api = TonutilsApi(host.directory / "daemon", start, stop)
    try:
        yield api
    finally:
        await trio.to_thread.run_sync(api.close)


@asynccontextmanager
async def control_port(host: Host) -> AsyncIterator[ControlPort]:
    async with trio.open_nursery() as nursery:
        fake = ControlPort(host.directory / "cpp", host.node)
        await nursery.start(fake.serve)
        yield fake
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def seeder_of(kind: str, host: Host) -> AsyncIterator[Seeder]:
    if kind == "node":
        yield host.node
    elif kind == "storage-daemon":
        async with control_port(host) as fake:
            yield fake.client()
    else:
        async with fake_daemon(host) as api:
            yield TonutilsDaemon(api.url)


@pytest.fixture(params=["node", "tonutils-storage", "storage-daemon"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_what_it_seeds_others_can_fetch_and_what_it_forgets_not(kind: str, world: World) -> None:
    host, reader = await world.host("host"), await world.host("reader")
    bag = bag_of(world.folder / "origin" / "photos")
    StoredBag.keep(host.directory / "bag", bag)
    async with seeder_of(kind, host) as seeder:
        await seeder.seed(bag.info.bag_id, host.directory / "bag")
        await seeder.seed(bag.info.bag_id, host.directory / "bag")
        await reader.node.fetch(bag.info.bag_id, reader.directory, [1], timeout=20)
        await seeder.forget(bag.info.bag_id)
        await seeder.forget(bag.info.bag_id)
        with pytest.raises((PeerUnreachable, TimedOut)):
            await reader.node.fetch(bag.info.bag_id, reader.directory, [2], timeout=2)
    assert (world.folder / "origin" / "photos" / "a").exists()


async def test_seed_says_why_it_failed(kind: str, world: World) -> None:
    host = await world.host("host")
    bag, other = bag_of(world.folder / "one"), bag_of(world.folder / "two", 2)
    StoredBag.keep(host.directory / "bag", bag)
    async with seeder_of(kind, host) as seeder:
        with pytest.raises(NotFound):
            await seeder.seed(bag.info.bag_id, world.folder / "nothing")
        with pytest.raises(NotFound):
            await seeder.seed(other.info.bag_id, host.directory / "bag")


# The daemon alone.


def unfinished(world: World, folder: Path) -> BagId:
    bag = bag_of(world.folder / "whole")
    StoredBag.prepare(folder, bag.info.bag_id).set_info(bag.info.to_boc())
    return bag.info.bag_id


def small_pieces(world: World, folder: Path) -> BagId:
    bag_of(world.folder / "small")
    bag = create_bag(world.folder / "small", piece_size=4096)
    StoredBag.keep(folder, bag)
    return bag.info.bag_id


def exactly_full(world: World, folder: Path) -> BagId:
    path = world.folder / "file.bin"
    path.write_bytes(bytes(2 * PIECE - 32 - 16 - len("file.bin")))
    bag = create_bag(path, raw=True)
    assert bag.info.file_size % PIECE == 0
    StoredBag.keep(folder, bag)
    return bag.info.bag_id


@pytest.mark.parametrize("make", [unfinished, small_pieces, exactly_full])
async def test_a_bag_that_the_daemon_would_make_otherwise_or_crash_on_is_never_shown_to_it(
    make: Callable[[World, Path], BagId], world: World
) -> None:
    host = await world.host("host")
    bag = make(world, host.directory / "bag")
    async with fake_daemon(host) as api:
        with pytest.raises(Refused):
            await TonutilsDaemon(api.url).seed(bag, host.directory / "bag")
        assert api.calls == []


async def test_another_bag_that_the_daemon_made_is_removed_again(world: World) -> None:
    host = await world.host("host")
    bag = bag_of(world.folder / "photos")
    StoredBag.keep(host.directory / "bag", bag)
    (world.folder / "photos" / "a").write_bytes(b"changed since")
    async with fake_daemon(host) as api:
        with pytest.raises(Refused):
            await TonutilsDaemon(api.url).seed(bag.info.bag_id, host.directory / "bag")
        assert (api.calls, api.bags) == (["details", "list", "create", "remove"], {})


async def test_bags_that_were_in_the_daemon_before_are_not_taken_out(world: World) -> None:
    host = await world.host("host")
    bag = bag_of(world.folder / "photos")
    StoredBag.keep(host.directory / "bag", bag)
    async with fake_daemon(host) as api:
        await TonutilsDaemon(api.url).seed(bag.info.bag_id, host.directory / "bag")
        other = TonutilsDaemon(api.url)
        await other.seed(bag.info.bag_id, host.directory / "bag")
        await other.forget(bag.info.bag_id)
        assert list(api.bags) == [bag.info.bag_id.hex()]
        wanted = bag_of(world.folder / "more" / "photos", 2)
        StoredBag.keep(host.directory / "wanted", wanted)
        for name in ("a", "b"):
            (world.folder / "more" / "photos" / name).write_bytes((world.folder / "photos" / name).read_bytes())
        with pytest.raises(Refused):  # what it makes of the changed files is the bag from before
            await other.seed(wanted.info.bag_id, host.directory / "wanted")
        assert list(api.bags) == [bag.info.bag_id.hex()]


@pytest.mark.parametrize("kind", ["tonutils-storage", "storage-daemon"])
async def test_a_restart_knows_which_bags_were_given_to_the_daemon(kind: str, world: World) -> None:
    host = await world.host("host")
    bag, theirs = bag_of(world.folder / "photos"), bag_of(world.folder / "theirs", 2)
    file = host.directory / "given"
    for name, one in (("bag", bag), ("theirs", theirs)):
        StoredBag.keep(host.directory / name, one)

    async def check(fake: TonutilsApi | ControlPort, client: Callable[[GivenBags], Seeder]) -> None:
        await client(GivenBags()).seed(theirs.info.bag_id, host.directory / "theirs")
        for one, name in ((bag, "bag"), (theirs, "theirs")):
            await client(GivenBags(file)).seed(one.info.bag_id, host.directory / name)
        assert len(fake.bags) == 2
        for one in (bag, theirs):
            await client(GivenBags(file)).forget(one.info.bag_id)
        assert [str(key) if isinstance(key, str) else key.hex() for key in fake.bags] == [theirs.info.bag_id.hex()]

    if kind == "tonutils-storage":
        async with fake_daemon(host) as api:
            await check(api, lambda given: TonutilsDaemon(api.url, given=given))
    else:
        async with control_port(host) as port:
            await check(port, lambda given: storage_client(port, given))


def storage_client(port: ControlPort, given: GivenBags) -> StorageDaemon:
    return StorageDaemon(("127.0.0.1", port.port), port.server_key.public_key, port.client_key, given)


@pytest.mark.parametrize("status", [200, 401])
async def test_an_answer_nested_too_deep_or_a_wrong_login_leaves_the_bag_to_our_own_peer(
    status: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = await world.host("own")
    bag = bag_of(world.folder / "photos")
    StoredBag.keep(own.directory / "bag", bag)
    daemon = TonutilsDaemon("http://127.0.0.1:1")
    monkeypatch.setattr(daemon, "_ask", lambda *_: (status, b"[" * 200_000))
    await BackedNet(own.node, daemon).seed(bag.info.bag_id, own.directory / "bag")
    assert [info.bag_id for info in own.node.bags()] == [bag.info.bag_id]


@pytest.mark.parametrize("made", [b'{"bag_id": []}', b'{"bag_id": null}', b"{}"])
async def test_an_answer_that_names_no_bag_leaves_the_bag_to_our_own_peer(
    made: bytes, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = await world.host("own")
    bag = bag_of(world.folder / "photos")
    StoredBag.keep(own.directory / "bag", bag)
    daemon, calls = TonutilsDaemon("http://127.0.0.1:1"), []

    def ask(name: str, *_: object) -> tuple[int, bytes]:
        calls.append(name.partition("?")[0])
        return (404, b"{}") if name.startswith("details") else (200, made if name == "create" else b'{"bags": null}')

    monkeypatch.setattr(daemon, "_ask", ask)
    await BackedNet(own.node, daemon).seed(bag.info.bag_id, own.directory / "bag")
    assert [info.bag_id for info in own.node.bags()] == [bag.info.bag_id]
    assert calls == ["details", "list", "create"], "nothing is removed that has no name"


def test_what_daemons_say_is_shown_without_control_characters() -> None:
    with pytest.raises(Refused, match=r"500: no \[31m \? room$"):
        parse_answer("create", 500, rb'{"error": "no\u001b[31m \ud800 room"}')
    said = tl.Writer(QUERY_ERROR).bytes_(b"no\n\xff room" + b"!" * 9000).done()
    with pytest.raises(Refused, match="says: no \ufffd room!") as caught:
        no_error(said)
    assert len(caught.value.message) < 2000


async def test_one_deadline_holds_for_a_whole_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    host = await world.host("host")
    bag = bag_of(world.folder / "photos")
    StoredBag.keep(host.directory / "bag", bag)
    over = threading.Event()
    daemon = TonutilsDaemon("http://127.0.0.1:1")
    monkeypatch.setattr(tonutils_daemon, "CALL_TIMEOUT", 0.2)
    monkeypatch.setattr(daemon, "_ask", lambda *_: (200, b"{}") if over.wait(60) else (200, b""))
    try:
        with pytest.raises(NotRunning):
            await daemon.seed(bag.info.bag_id, host.directory / "bag")
    finally:
        over.set()


async def test_logins_and_answers_that_are_none(world: World, tmp_path: Path) -> None:
    host = await world.host("host")
    bag = bag_of(world.folder / "photos")
    StoredBag.keep(host.directory / "bag", bag)
    (tmp_path / "password").write_text("secret\n", encoding="ascii")
    async with fake_daemon(host) as api:
        api.login = "Basic " + base64.b64encode(b"me:secret").decode()
        with pytest.raises(UsageError):
            await TonutilsDaemon(api.url, "me", "wrong").seed(bag.info.bag_id, host.directory / "bag")
        await daemon_of(api.url, "me", str(tmp_path / "password")).seed(bag.info.bag_id, host.directory / "bag")
        api.login, api.broken = "", 405
        with pytest.raises(BadPacket):
            await TonutilsDaemon(api.url).seed(bag.info.bag_id, host.directory / "bag")
        url = api.url
    with pytest.raises(NotRunning):
        await TonutilsDaemon(url).seed(bag.info.bag_id, host.directory / "bag")
    with pytest.raises(UsageError):
        TonutilsDaemon("ftp://127.0.0.1")


async def test_our_own_peer_seeds_what_the_daemon_does_not(world: World) -> None:
    host, own, reader = await world.host("host"), await world.host("own"), await world.host("reader")
    good = bag_of(world.folder / "photos")
    StoredBag.keep(own.directory / "good", good)
    small = small_pieces(world, own.directory / "small")
    async with fake_daemon(host) as api:
        net = BackedNet(own.node, TonutilsDaemon(api.url))
        await net.seed(good.info.bag_id, own.directory / "good")
        await net.seed(small, own.directory / "small")
        assert [info.bag_id for info in own.node.bags()] == [small]
        assert [info.bag_id for info in host.node.bags()] == [good.info.bag_id]
        for number, bag in enumerate((good.info.bag_id, small)):
            await reader.node.fetch(bag, reader.directory / str(number), [0], timeout=20)
        await net.forget(small)
        await net.forget(good.info.bag_id)
        assert own.node.bags() == host.node.bags() == []
        api.broken = 405
        await net.seed(good.info.bag_id, own.directory / "good")  # the daemon has gone mad
        assert [info.bag_id for info in own.node.bags()] == [good.info.bag_id]


# storage-daemon alone.


async def test_storage_daemon_gets_only_bags_that_it_makes_the_same(world: World) -> None:
    host = await world.host("host")
    folder = world.folder / "mixed"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "b").write_bytes(b"1" * 1000)
    (folder / "a.txt").write_bytes(b"2" * 1000)
    walk, ordered = create_bag(folder, order="walk"), create_bag(folder, order="sorted")
    assert walk.info.bag_id != ordered.info.bag_id
    for bag in (walk, ordered):
        StoredBag.keep(host.directory / bag.info.bag_id.hex(), bag)
    small = small_pieces(world, host.directory / "small")
    async with control_port(host) as fake:
        for bag_id, directory in ((walk.info.bag_id, walk.info.bag_id.hex()), (small, "small")):
            with pytest.raises(Refused):
                await fake.client().seed(bag_id, host.directory / directory)
        assert fake.calls == []
        await fake.client().seed(ordered.info.bag_id, host.directory / ordered.info.bag_id.hex())
        (folder / "a.txt").write_bytes(b"3" * 1000)
        fake.bags.clear()
        with pytest.raises(Refused):
            await fake.client().seed(ordered.info.bag_id, host.directory / ordered.info.bag_id.hex())
        assert fake.bags == {}, "what it made of the changed files is taken out again"


async def test_storage_daemon_is_reached_by_the_keys_in_its_folder(world: World, tmp_path: Path) -> None:
    host = await world.host("host")
    bag = bag_of(world.folder / "photos")
    StoredBag.keep(host.directory / "bag", bag)
    async with control_port(host) as fake:
        where = f"127.0.0.1:{fake.port}"
        keys = tmp_path / "cli-keys"
        with pytest.raises(TonfsError):
            storage_daemon_of(where, str(keys))
        keys.mkdir()
        (keys / "server.pub").write_bytes(boxed_public(fake.server_key.public_key))
        for client, fails in ((fake.client_key, False), (KeyPair.generate(), True)):
            seed = client.seed.reveal()
            (keys / "client").write_bytes(PRIVATE_ED25519.to_bytes(4, "little") + seed)
            daemon = storage_daemon_of(where, str(keys))
            if fails:
                with pytest.raises(NotRunning):
                    await daemon.seed(bag.info.bag_id, host.directory / "bag")
            else:
                await daemon.seed(bag.info.bag_id, host.directory / "bag")
        (keys / "client").write_bytes(b"rubbish")
        with pytest.raises(UsageError):
            storage_daemon_of(where, str(keys))
        with pytest.raises(UsageError):
            storage_daemon_of("nowhere", str(keys))
