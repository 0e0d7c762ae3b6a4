"""The volume alone, without kernel and doors: microseconds of one thread per call, best of some rounds.

    python benchmarks/volume.py [--rounds 3] [--json FILE]

A second thread commits in the background, as in the front. CPU is of the whole process (that thread included).
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tonfs.ids import Inode
from tonfs.volume import ROOT, SetAttr, Volume

FILES = 2000
BLOCKS = 4000
Step = Callable[[Volume, dict[str, Any]], int]


def names(count: int = FILES) -> list[bytes]:
    return [b"file-%05d" % n for n in range(count)]


def create(volume: Volume, world: dict[str, Any]) -> int:
    folder = world["folder"] = volume.mkdir(ROOT, b"d%d" % world["round"], 0o755, 0, 0).inode
    world["inodes"] = [volume.create(folder, name, 0o100644, 0, 0).inode for name in names()]
    return FILES


def write_4k(volume: Volume, world: dict[str, Any]) -> int:
    data = b"x" * 4096
    for inode in world["inodes"]:
        volume.write(inode, 0, data)
    return FILES


def lookup(volume: Volume, world: dict[str, Any]) -> int:
    for name in names():
        volume.lookup(world["folder"], name)
    return FILES


def lookup_live(volume: Volume, world: dict[str, Any]) -> int:
    peek = getattr(volume, "peek", None)
    if peek is None:
        return 0
    for name in names():
        peek(world["folder"], name)
    return FILES


def getattr_(volume: Volume, world: dict[str, Any]) -> int:
    for inode in world["inodes"]:
        volume.getattr(inode)
    return FILES


def setattr_(volume: Volume, world: dict[str, Any]) -> int:
    change = SetAttr(mtime_ns=1_700_000_000_123_456_789)
    for inode in world["inodes"]:
        volume.setattr(inode, change)
    return FILES


def read_4k(volume: Volume, world: dict[str, Any]) -> int:
    for inode in world["inodes"]:
        volume.read(inode, 0, 4096)
    return FILES


def list_dir(volume: Volume, world: dict[str, Any]) -> int:
    after = count = 0
    while entries := volume.list_dir(world["folder"], after, 256):
        after, count = entries[-1].cookie, count + len(entries)
    return count


def rename(volume: Volume, world: dict[str, Any]) -> int:
    for name in names():
        volume.rename(world["folder"], name, world["folder"], b"n" + name)
    return FILES


def unlink(volume: Volume, world: dict[str, Any]) -> int:
    for name in names():
        volume.unlink(world["folder"], b"n" + name)
    return FILES


def random_write(volume: Volume, world: dict[str, Any]) -> int:
    inode = volume.create(ROOT, b"big%d" % world["round"], 0o100644, 0, 0).inode
    volume.write(inode, 0, bytes(BLOCKS * 4096))
    world["big"], order, data = inode, list(range(BLOCKS)), b"y" * 4096
    random.Random(1).shuffle(order)
    begun = time.perf_counter()
    for block in order:
        volume.write(inode, block * 4096, data)
    world["only"] = time.perf_counter() - begun
    return BLOCKS


def random_read(volume: Volume, world: dict[str, Any]) -> int:
    order = list(range(BLOCKS))
    random.Random(2).shuffle(order)
    for block in order:
        volume.read(world["big"], block * 4096, 4096)
    return BLOCKS


def fsync_small(volume: Volume, world: dict[str, Any]) -> int:
    for number in range(100):
        inode = volume.create(ROOT, b"s%d-%d" % (world["round"], number), 0o100644, 0, 0).inode
        volume.write(inode, 0, b"z" * 1000)
        volume.sync(inode)
    return 100


def put(volume: Volume, world: dict[str, Any]) -> int:
    """A durable small object: one group commit."""
    from tonfs.volume import S3Record

    bucket = volume.create_bucket(b"bucket%d" % world["round"], 0, 0).inode
    for number in range(100):
        staged: Inode = volume.stage(0, 0)
        volume.write(staged, 0, b"z" * 1000)
        volume.publish(staged, bucket, [b"%d" % number], S3Record(etag="e"))
        volume.commit()
    return 100


STEPS: dict[str, Step] = {
    "create": create,
    "write_4k": write_4k,
    "getattr": getattr_,
    "setattr": setattr_,
    "lookup": lookup,
    "lookup_live": lookup_live,
    "read_4k": read_4k,
    "list": list_dir,
    "rename": rename,
    "unlink": unlink,
    "random_write_4k": random_write,
    "random_read_4k": random_read,
    "create_write_fsync": fsync_small,
    "put_durable": put,
}


def run(rounds: int) -> dict[str, dict[str, float]]:
    best: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="tonfs-bench-") as folder:
        volume = Volume(Path(folder))
        stop = threading.Event()

        def commits() -> None:
            while not stop.wait(0.15):
                volume.background()

        thread = threading.Thread(target=commits)
        thread.start()
        try:
            for number in range(rounds):
                world: dict[str, Any] = {"round": number}
                for name, step in STEPS.items():
                    world.pop("only", None)
                    cpu, begun = time.process_time(), time.perf_counter()
                    count = step(volume, world)
                    wall, cpu = world.get("only", time.perf_counter() - begun), time.process_time() - cpu
                    if count:
                        one = {"us": wall / count * 1e6, "cpu_us": cpu / count * 1e6}
                        best[name] = min(best.get(name, one), one, key=lambda x: x["us"])
        finally:
            stop.set()
            thread.join()
            volume.close()
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    sys.setswitchinterval(0.001)
    best = run(words.rounds)
    for name, one in best.items():
        print(f"{name:20} {one['us']:9.1f} us   cpu {one['cpu_us']:9.1f} us")
    print(f"peak RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")
    if words.json:
        words.json.parent.mkdir(parents=True, exist_ok=True)
        words.json.write_text(json.dumps(best, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
