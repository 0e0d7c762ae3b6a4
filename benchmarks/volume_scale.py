"""A volume of a million files: how long it takes to open, to recover, to list a huge directory, and how much memory.

    python benchmarks/volume_scale.py [--files 1000000] [--keep DIR]

One directory has 100 000 entries (or a tenth), the others 1000 each; every tenth file has 100 bytes. Each phase runs in
a process of its own, so that its memory is its own. Not part of `make bench`: it takes some minutes and 1 GB of disk.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tonfs.volume import ROOT, Volume

GOALS = {"open": 3.0, "recover": 5.0, "list": 2.0, "rss": 300}


def build(directory: Path, files: int) -> None:
    volume = Volume(directory)
    begun = committed = time.perf_counter()
    made = 0

    def fill(name: bytes, count: int) -> None:
        nonlocal made, committed
        folder = volume.mkdir(ROOT, name, 0o755, 0, 0).inode
        for number in range(count):
            inode = volume.make(folder, b"file-%07d" % number, 0o100644, 0, 0).inode
            if number % 10 == 0:
                volume.write(inode, 0, b"x" * 100)
            made += 1
            if time.perf_counter() - committed > 0.2:
                volume.background()
                committed = time.perf_counter()

    fill(b"huge", files // 10)
    while made < files:
        fill(b"dir-%05d" % (made // 1000), min(1000, files - made))
    took = time.perf_counter() - begun
    volume.commit()
    say("create", f"{files / took:.0f} files/s, peak RSS {peak()} MiB")
    if os.environ.get("CRASH"):
        os._exit(0)
    volume.close()


def opened(directory: Path, label: str, goal: str) -> None:
    before = peak()
    begun = time.perf_counter()
    volume = Volume(directory)
    took = time.perf_counter() - begun
    say(label, f"{took:.2f} s (goal {GOALS[goal]:g}), RSS {before} -> {peak()} MiB")
    volume.close()


def listed(directory: Path) -> None:
    volume = Volume(directory)
    folder = volume.lookup(ROOT, b"huge").inode
    begun = time.perf_counter()
    after = count = 0
    while entries := volume.list_live(folder, after, 256):
        count, after = count + len(entries), entries[-1][1]
    took = time.perf_counter() - begun
    say("list", f"{count} entries in {took:.2f} s (goal {GOALS['list']:g}), peak RSS {peak()} MiB")
    begun = time.perf_counter()
    for number in range(0, count, 10):
        assert volume.peek(folder, b"file-%07d" % number) is not None
    say("lookup", f"{(time.perf_counter() - begun) / (count / 10) * 1e6:.0f} us each, cold, in the huge directory")
    begun = time.perf_counter()
    for number in range(1000):
        volume.make(folder, b"new-%d" % number, 0o100644, 0, 0)
    say("create", f"{(time.perf_counter() - begun) / 1000 * 1e6:.0f} us each in the huge directory")
    volume.close()


def walked(directory: Path) -> None:
    """Every inode once: memory stays bounded."""
    volume = Volume(directory)
    begun, last, count = time.perf_counter(), 0.0, 0
    stack = [ROOT]
    while stack:
        folder, after = stack.pop(), 0
        while entries := volume.list_live(folder, after, 256):
            stack += [node.inode for _, _, node in entries if node.mode & 0o170000 == 0o040000]
            count, after = count + len(entries), entries[-1][1]
            if time.perf_counter() - last > 0.2:
                volume.background()
                last = time.perf_counter()
    say("walk", f"{count} entries, {count / (time.perf_counter() - begun):.0f}/s, peak RSS {peak()} MiB")
    volume.close()


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def say(what: str, text: str) -> None:
    print(f"{what:12} {text}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="make the volume here and leave it")
    parser.add_argument("--phase", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.phase:
        match words.phase:
            case "build":
                build(words.keep, words.files)
            case "recover":
                opened(words.keep, "recover", "recover")
            case "open":
                opened(words.keep, "open", "open")
            case "list":
                listed(words.keep)
            case "walk":
                walked(words.keep)
        return 0
    base = words.keep or Path(tempfile.mkdtemp(prefix="tonfs-scale-"))
    base.mkdir(parents=True, exist_ok=True)
    try:
        for phase in ("build", "recover", "open", "list", "walk"):
            command = [sys.executable, __file__, "--phase", phase, "--keep", str(base), "--files", str(words.files)]
            subprocess.run(command, check=True, env={**os.environ, "CRASH": "1"})
    finally:
        if words.keep is None:
            shutil.rmtree(base)
    return 0


if __name__ == "__main__":
    sys.exit(main())
