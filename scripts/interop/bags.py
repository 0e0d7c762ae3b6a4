"""Bags between tonfs and the Go daemon, found through the devnet's DHT alone."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tonfs.errors import Refused
from tonfs.ids import BagId
from tonfs.network.tonutils_daemon import TonutilsDaemon

from .go_daemon import RELAYED, BypassedError, Daemon, Ours, Relay, devnet, free_udp_port, need_go, until
from .kit import ROOT, Judge, digest

VECTORS = ROOT.parent / "shared" / "vectors" / "bags" / "vectors.json"
TREES = 300
LOSS = 0.05
KIB = 1024


def hold(condition: object, what: str) -> None:
    if not condition:
        raise RuntimeError(what)


def tree(root: Path, seed: int, size: int) -> Path:
    """A folder of `size` bytes: one large file, a folder with a few small ones, and an empty one."""
    rng = random.Random(seed)
    (root / "sub").mkdir(parents=True)
    (root / "large").write_bytes(rng.randbytes(size - 30_000))
    for number in range(3):
        (root / "sub" / f"small-{number}").write_bytes(rng.randbytes(10_000))
    (root / "empty").touch()
    return root


def same(got: Path, source: Path) -> None:
    """tonutils-storage may leave out empty files at the edge of a piece (reference protocol 1.7)."""
    ours, theirs = digest(source), digest(got)
    wrong = [name for name, value in ours.items() if theirs.get(name) != value and (source / name).stat().st_size]
    hold(not wrong, f"{got}: {wrong[:3]} differ from what was shared")


def exchange(base: Path) -> str:
    need_go()
    with devnet(base) as net:
        config = net["global_config"]
        ours = Ours(base, "ours", config)
        with Daemon(base, "daemon", config).running() as daemon:
            source = tree(base / "a" / "theirs", 1, 6_000_000)
            bag = daemon.create(source, "made by Go")
            got = ours.get(bag)
            same(got, source)
            hold((got / "empty").exists(), "we lost an empty file")
            other = Ours(base, "other", config)
            part = other.bag("get", bag, "--to", str(base / "part"), "--file", "sub/small-1", "--timeout", "60s")
            hold(part["have"] <= 3 and not part["complete"], f"one small file took {part['have']} pieces")
            hold(Path(part["path"]).read_bytes() == (source / "sub" / "small-1").read_bytes(), "the part differs")

            mine = tree(base / "b" / "ours", 2, 6_000_000)
            single = base / "b" / "single.bin"
            single.write_bytes(random.Random(3).randbytes(2_000_001))
            bags = {ours.create(mine, "--description", "made by us"): mine, ours.create(single): single}
            with ours.seeding():
                for bag, path in bags.items():
                    place = daemon.add(bag)
                    daemon.wait_for(bag, 90)
                    if path.is_dir():
                        same(place / path.name, path)
                    else:
                        hold((place / path.name).read_bytes() == path.read_bytes(), "our single file differs there")
    return "a folder both ways and a single file, BagIDs found in the DHT, one file on demand by its pieces alone"


def at_once(*calls: Callable[[], str]) -> list[str]:
    """These wait more than they work, so they run together. Raises what the first of them raised."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def pieces(base: Path) -> str:
    """The daemon's own piece size is forced, so each size has a daemon that makes a bag and fetches one of ours."""
    need_go()
    with devnet(base) as net:
        sizes = (256 * KIB, 512 * KIB, 1024 * KIB)
        done = at_once(*(partial(_pieces_of, base, net["global_config"], size) for size in sizes))
    return f"made and fetched by both with pieces of {', '.join(done)}"


def _pieces_of(base: Path, config: str, size: int) -> str:
    name = f"{size // KIB}k"
    ours = Ours(base, f"ours-{name}", config)
    with Daemon(base, f"daemon-{name}", config, piece_size=size).running() as daemon:
        source = tree(base / name / "theirs", size, 5 * size + 12_345)
        bag = daemon.create(source)
        hold(ours.create(source, "--piece-size", str(size)) == bag, f"other BagID with pieces of {size}")
        ours.bag("remove", bag)
        same(ours.get(bag), source)
        mine = tree(base / name / "ours", size + 1, 5 * size + 23_456)
        bag = ours.create(mine, "--piece-size", str(size))
        with ours.seeding():
            place = daemon.add(bag)
            daemon.wait_for(bag)
        same(place / "ours", mine)
    return name


def restarts(base: Path) -> str:
    need_go()
    with devnet(base) as net:
        config = net["global_config"]
        lines = at_once(partial(_getter_restarts, base, config), partial(_seeder_restarts, base, config))
    return f"killed in the middle and gone on with: {', '.join(lines)}"


def _getter_restarts(base: Path, config: str) -> str:
    ours = Ours(base, "getter", config)
    slow = Daemon(base, "slow", config)
    slow.argv += ["-limit-upload", str(1_500_000)]
    with slow.running() as daemon:
        source = tree(base / "a" / "theirs", 1, 9_000_000)
        bag = daemon.create(source)
        getting = ours.begin("get", bag, "--to", str(ours.folder / "got"))
        until("some pieces are here", lambda: _have(ours, bag) > 5, 60)
        getting.send_signal(signal.SIGKILL)
        getting.communicate(timeout=30)
        before = _have(ours, bag)
        getting = ours.begin("get", bag, "--to", str(ours.folder / "got"), "--timeout", "150s")
        until("it goes on", lambda: _have(ours, bag) > before + 5, 60)
        daemon.end(hard=True)
        daemon.start()
        _, said = getting.communicate(timeout=170)
        hold(getting.returncode == 0, f"'bag get' ended with {getting.returncode}: {said[-300:]}")
        same(ours.folder / "got" / "theirs", source)
    return "our getter, the daemon that seeds"


def _seeder_restarts(base: Path, config: str) -> str:
    ours = Ours(base, "seeder", config)
    fast = Daemon(base, "fast", config)
    fast.argv += ["-limit-download", str(1_500_000)]
    mine = tree(base / "b" / "ours", 2, 9_000_000)
    bag = ours.create(mine)
    with fast.running() as daemon:
        with ours.seeding(hard=True):
            place = daemon.add(bag)
            until("the daemon has a part", lambda: daemon.details(bag)["downloaded"] > 1_000_000, 60)
        with ours.seeding():
            at = time.monotonic()
            before = daemon.details(bag)["downloaded"]
            until("it goes on", lambda: daemon.details(bag)["downloaded"] > before + 500_000, 120)
            seconds = time.monotonic() - at
            daemon.end(hard=True)
            daemon.start()
            daemon.wait_for(bag, 120)
        same(place / "ours", mine)
    return f"our seeder (in touch again after {seconds:.0f} s), the daemon that downloads"


def _have(ours: Ours, bag: str) -> int:
    """Pieces that are there, read from the bag directory: a command would take longer than the download."""
    try:
        bits = (ours.folder / "store" / "bags" / bag / "have.bin").read_bytes()
    except FileNotFoundError:
        return 0
    return int.from_bytes(bits, "little").bit_count()


def loss(base: Path) -> str:
    need_go()
    with devnet(base) as net:
        config = net["global_config"]
        calls = [
            partial(_through_relay, call, base, config, share)
            for share in (LOSS, 2 * LOSS)
            for call in (_lossy_get, _lossy_seed)
        ]
        lines = at_once(*calls)
    return f"both ways at 5 % and 10 % loss; datagrams dropped: {', '.join(lines)}"


def _through_relay(call: Callable[[Path, str, float], str], base: Path, config: str, share: float) -> str:
    """Again when the two found each other directly: both sit on this machine, and DHT nodes saw where they are."""
    for attempt in range(3):
        place = base / f"{call.__name__}-{share:g}-{attempt}"
        place.mkdir()
        with suppress(BypassedError):
            return call(place, config, share)
    raise BypassedError("three times the two found each other past the relay")


def _lossy_get(base: Path, config: str, share: float) -> str:
    name = f"get-{share:g}"
    daemon = Daemon(base, f"daemon-{name}", config, announce=RELAYED)
    with Relay(daemon.udp, share) as relay, daemon.running():
        source = tree(base / name / "theirs", 1, 4_000_000)
        hidden = ("--listen", "0.0.0.0:0")  # who downloads has no address, or the other dials it past the relay
        same(Ours(base, f"ours-{name}", config).get(daemon.create(source), *hidden), source)
        return relay.lost(share)


def _lossy_seed(base: Path, config: str, share: float) -> str:
    name = f"seed-{share:g}"
    ours = Ours(base, f"ours-{name}", config)
    mine = tree(base / name / "ours", 2, 4_000_000)
    bag, port = ours.create(mine), free_udp_port()
    daemon = Daemon(base, f"daemon-{name}", config, announce="")
    words = ("--listen", f"127.0.0.1:{port}", "--external-ip", RELAYED)
    with Relay(port, share, 2) as relay, daemon.running(), ours.seeding(*words):
        place = daemon.add(bag)
        daemon.wait_for(bag, 120)
        same(place / "ours", mine)
        return relay.lost(share)


def nat(base: Path) -> str:
    """Who has no address is in contact all the same: it dials the other."""
    need_go()
    with devnet(base) as net:
        config = net["global_config"]
        lines = at_once(partial(_we_hide, base, config), partial(_daemon_hides, base, config))
    return "; ".join(lines)


def _we_hide(base: Path, config: str) -> str:
    hidden = Ours(base, "hidden", config)
    with Daemon(base, "daemon", config).running() as daemon:
        source = tree(base / "a" / "theirs", 1, 2_000_000)
        same(hidden.get(daemon.create(source), "--listen", "0.0.0.0:0"), source)
        mine = tree(base / "b" / "ours", 2, 2_000_000)
        bag = hidden.create(mine)
        with hidden.seeding("--listen", "0.0.0.0:0"):
            place = daemon.add(bag)
            daemon.wait_for(bag, 120)
            same(place / "ours", mine)
    return "our node without an address downloads and seeds"


def _daemon_hides(base: Path, config: str) -> str:
    with Daemon(base, "client", config, announce="").running() as daemon:
        source = tree(base / "c" / "theirs", 3, 2_000_000)
        bag = daemon.create(source)
        same(Ours(base, "open", config).get(bag, timeout="115s"), source)
    return "a daemon without an address seeds to us"


def adapter(base: Path) -> str:
    """The daemon as our seeding back end: the checks of tests/unit/network/test_seeders.py on the real one."""
    need_go()
    with devnet(base) as net, Daemon(base, "daemon", net["global_config"]).running() as daemon:
        ours = Ours(base, "ours", net["global_config"])
        source = tree(base / "a" / "pack", 1, 3_000_000)
        bag = ours.create(source, "--description", "by the daemon")
        directory = ours.folder / "store" / "bags" / bag
        wanted = BagId(bytes.fromhex(bag))

        async def seed(times: int) -> TonutilsDaemon:
            backend = TonutilsDaemon(f"http://127.0.0.1:{daemon.port}")
            for _ in range(times):
                await backend.seed(wanted, directory)
            return backend

        backend = trio.run(seed, 2)
        hold(daemon.details(bag)["seeding"], "the daemon does not seed")
        got = Ours(base, "reader", net["global_config"]).get(bag)
        same(got, source)
        trio.run(backend.forget, wanted)
        trio.run(backend.forget, wanted)
        hold(not daemon.api("list")["bags"], "the daemon was not made to forget")
        same(source, source)
        small = ours.create(tree(base / "b" / "small", 2, 100_000), "--piece-size", "8K")
        try:
            trio.run(backend.seed, BagId(bytes.fromhex(small)), ours.folder / "store" / "bags" / small)
        except Refused:
            return (
                "seeds a bag for us from where it lies, forgets it, files stay; what it would make otherwise is refused"
            )
        raise RuntimeError("a bag with other pieces was given to the daemon")


# Many trees.


def _vector_trees(base: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The cases of the shared vectors that a daemon can make and survive, with the daemon's habits left alone."""
    if not VECTORS.exists():
        return
    for case in json.loads(VECTORS.read_text(encoding="utf-8"))["cases"]:
        harmless = not {"exact", "refused", "big", "backslash", "hidden-root"} & set(case.get("tags", []))
        if harmless and not case["piece_size"] and not any("link" in one for one in case["tree"]):
            scratch = base / "vectors" / str(case["name"])
            for entry in case["tree"]:
                _make(scratch, entry)
            yield scratch / case["path"], case


def _make(scratch: Path, entry: dict[str, Any]) -> None:
    def content(seed: str, size: int) -> bytes:
        return hashlib.shake_128(os.fsencode(seed)).digest(size)

    if "many" in entry:
        many = entry["many"]
        for i in range(many["count"]):
            path = scratch / many["name"].format(i=i, j=i // many["per_dir"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content(f"{many['seed']}/{i}", many["sizes"][i % len(many["sizes"])]))
        return
    path = scratch / entry["path"]
    path.parent.mkdir(parents=True, exist_ok=True)
    if "dir" in entry:
        path.mkdir(exist_ok=True)
    elif "zeros" in entry:
        path.write_bytes(bytes(entry["zeros"]))
    else:
        path.write_bytes(entry["text"].encode() if "text" in entry else content(entry["seed"], entry["size"]))


_LETTERS = ("a", "b", "Z", "-", ".", "_", " ", "ä", "日", "😀", "0", "~", "#", "%", "'")


def _random_tree(root: Path, rng: random.Random) -> Path:
    """Names that sort differently by walk and by bytes, empty files and folders, sizes around the piece's edge."""

    def name() -> str:
        while True:
            word = "".join(rng.choice(_LETTERS) for _ in range(rng.randrange(1, 9)))
            if word.strip(". ") and not word.endswith("."):
                return word

    folders = [root]
    root.mkdir(parents=True)
    for _ in range(rng.randrange(0, 5)):
        folder = rng.choice(folders) / name()
        folder.mkdir(exist_ok=True)
        folders.append(folder)
    for _ in range(rng.randrange(1, 12)):
        path = rng.choice(folders) / name()
        if not path.exists():
            path.write_bytes(rng.randbytes(rng.choice((0, 1, 5, 100, 5_000, 131_072, rng.randrange(200_000)))))
    if not any(path.is_file() for path in root.rglob("*")):
        (root / "one").write_bytes(b"1")
    return root


def trees(base: Path) -> str:
    need_go()
    from tonfs.bag import PieceTree
    from tonfs.bagfiles import create_bag

    rng = random.Random(20)
    agreed = refused = vectors = 0
    with devnet(base) as net, Daemon(base, "daemon", net["global_config"]).running() as daemon:

        def compare(path: Path, description: str) -> None:
            nonlocal agreed, refused
            try:
                ours = create_bag(path, description=os.fsencode(description))
            except Refused:
                refused += 1
                return
            theirs = daemon.create(path, description)
            hold(ours.info.bag_id.hex() == theirs, f"{path}: {ours.info.bag_id.hex()} here, {theirs} there")
            if agreed % 20 == 0:
                piece = rng.randrange(ours.info.pieces)
                proof = base64.b64decode(daemon.api(f"piece/proof?bag_id={theirs}&piece={piece}")["proof"])
                hold(proof == PieceTree(ours.hashes).proof(piece), f"{path}: the proofs of piece {piece} differ")
            daemon.api("remove", {"bag_id": theirs, "with_files": False})
            agreed += 1

        for path, case in _vector_trees(base):
            compare(path, case["description"])
            vectors += 1
        for number in range(TREES):
            path = _random_tree(base / "random" / f"{number:03}" / f"bag{number}", rng)
            compare(path, "" if number % 3 else "d" * rng.randrange(1, 166))
    hold(agreed >= TREES * 0.9, f"only {agreed} trees were compared")
    return f"{agreed} trees ({vectors} of the vectors): same BagID, every 20th the same proof; {refused} refused"


def named(name: str, check: Callable[[Path], str]) -> Judge:
    return Judge(f"go daemon: {name}", check)


JUDGES = (
    named("exchange", exchange),
    named("trees", trees),
    named("pieces", pieces),
    named("restarts", restarts),
    named("loss", loss),
    named("nat", nat),
    named("adapter", adapter),
)
