"""A volume of a million files, at the mount: how long until the first `ls` answers, also after kill -9; a cold `ls -l`
of 100 000 entries; a cold walk over everything; how much memory the front takes for that.

    python benchmarks/mount_scale.py [--files 1000000] [--keep DIR] [--json FILE]

The volume is that of `volume_scale.py`. As root, because caches are dropped before what is called cold. Not part of
`make bench`: making the volume takes some minutes and half a GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TONFS = [sys.executable, "-m", "tonfs"]
RUNS = 3
GOALS = {"recover": 5.0, "mount": 3.0, "ls -l": 2.0, "find -ls": None, "memory": 300}
"""Seconds; MiB."""


class Scale:
    def __init__(self, base: Path) -> None:
        self.volume, self.point = base / "volume", base / "mount"
        self.found: dict[str, float] = {}

    def build(self, files: int) -> None:
        """As a process that was killed leaves it."""
        if (self.volume / "index.db").exists():
            return
        self.volume.mkdir(parents=True)
        (self.volume / "config.toml").write_text('network = "none"\n', encoding="ascii")
        script = [sys.executable, str(HERE / "volume_scale.py"), "--phase", "build"]
        words = ["--keep", str(self.volume), "--files", str(files)]
        subprocess.run([*script, *words], check=True, env={**os.environ, "CRASH": "1"})

    @property
    def pid(self) -> int:
        return int((self.volume / "run" / "front.lock").read_text(encoding="ascii"))

    def mount(self, label: str) -> None:
        """Until the root is listed."""
        drop_caches()
        begun = time.perf_counter()
        subprocess.run([*TONFS, "--volume", str(self.volume), "mount", str(self.point)], check=True)
        os.listdir(self.point)
        self.note(label, time.perf_counter() - begun)

    def kill(self) -> None:
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.01)

    def umount(self) -> None:
        subprocess.run([*TONFS, "--quiet", "umount", str(self.point)], check=True)

    def run(self, label: str, *words: str) -> None:
        drop_caches()
        cpu = self._cpu()
        begun = time.perf_counter()
        lines = subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout.count(b"\n")
        took = time.perf_counter() - begun
        self.note(label, took, f"{lines:,} lines, front's CPU {self._cpu() - cpu:.2f} s")

    def _cpu(self) -> float:
        ticks = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def note(self, label: str, seconds: float, more: str = "") -> None:
        self.found[label] = min(self.found.get(label, seconds), seconds)
        goal = GOALS.get(label)
        say(label, f"{seconds:.2f} s{f' (goal {goal:g})' if goal else ''}", f"front's peak {self.peak()} MiB", more)

    def peak(self) -> int:
        """Resident memory of the front, MiB, at its highest."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        self.found["memory"] = max(self.found.get("memory", 0), int(found[1]) >> 10)
        return int(found[1]) >> 10


def drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
    time.sleep(1.0)  # the kernel gives up inodes, and tells the front so


def say(what: str, *texts: str) -> None:
    print(f"{what:10}" + ", ".join(filter(None, texts)), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="make the volume below this directory and leave it")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="else it is made, and removed, here")
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    base = words.keep or Path(tempfile.mkdtemp(prefix="tonfs-scale-", dir=words.folder))
    scale = Scale(base)
    try:
        scale.build(words.files)
        scale.mount("recover")
        scale.umount()
        for _ in range(RUNS):
            scale.mount("mount")
            scale.run("ls -l", "ls", "-l", str(scale.point / "huge"))
            scale.umount()
        scale.mount("mount")
        scale.run("find -ls", "find", str(scale.point), "-ls")
        scale.kill()
        scale.mount("recover")
        scale.umount()
    finally:
        subprocess.run(["umount", "-l", str(scale.point)], check=False, capture_output=True)
        if words.keep is None:
            shutil.rmtree(base)
    best = ", ".join(f"{name} {value:.2f}" for name, value in scale.found.items() if name != "memory")
    print(f"best: {best}; front's peak {scale.found['memory']:.0f} MiB (goal {GOALS['memory']})")
    if words.json:
        words.json.parent.mkdir(parents=True, exist_ok=True)
        out = {"schema": "tonfs.bench.mount_scale/1", "files": words.files, "goals": GOALS, "best": scale.found}
        words.json.write_text(json.dumps(out, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
