"""The power fails between any two calls: what was not fsynced may be lost, in part and out of order.

A workload runs once under a preloaded recorder (`power/recorder.c`) that writes down every call that changes a file, of
SQLite and of content files alike. The log is cut at many points; for each the disk is rebuilt as it may look then, and
the volume is opened. Blocks written since a file's last fsync are there or not, each on its own; a name made or
removed since the directory's last fsync, too (names of one directory in their order), of directories as of files.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.unit.volume.helpers import Packer, check, dump, evict_all
from tests.unit.volume.power.workload import ABSENT, ANY, digest
from tonfs.volume import Volume
from tonfs.volume.check import open_index
from tonfs.volume.check_content import check_content
from tonfs.volume.space import SpaceGuard

HERE = Path(__file__).parent / "power"
ROOT_FOLDER = Path(__file__).resolve().parents[3]
BLOCK = 4096
CUTS = 60
"""Points of the log that are looked at, spread evenly, besides those after each fsync and removal."""


@dataclass
class Op:
    kind: str
    path: str
    offset: int
    data: bytes
    length: int


def parse(log: bytes) -> list[Op]:
    ops, at = [], 0
    while at < len(log):
        end = log.index(b"\n", at)
        kind, path_length, offset, length = log[at:end].split()
        start = end + 1
        path = log[start : start + int(path_length)].decode()
        at = start + int(path_length)
        size = int(length) if kind in (b"w", b"r") else 0
        ops.append(Op(kind.decode(), path, int(offset), log[at : at + size], int(length)))
        at += size
    return ops


@dataclass
class File:
    durable: bytearray = field(default_factory=bytearray)
    waiting: list[Op] = field(default_factory=list)

    def state(self, keep: random.Random | None, *, all_of_it: bool = False) -> bytes:
        """What the disk may have: everything fsynced, and some of what waits (nothing without `keep`)."""
        data = bytearray(self.durable)
        for op in self.waiting if keep is not None or all_of_it else ():
            if all_of_it:
                apply(data, op)
            elif op.kind != "w":
                if keep is not None and keep.random() < 0.5:
                    apply(data, op)
            else:
                for start in range(0, len(op.data), BLOCK):
                    if keep is not None and keep.random() < 0.5:
                        apply(data, Op("w", "", op.offset + start, op.data[start : start + BLOCK], 0))
        return bytes(data)


def apply(data: bytearray, op: Op) -> None:
    if op.kind == "w":
        if op.offset > len(data):
            data += bytes(op.offset - len(data))
        data[op.offset : op.offset + len(op.data)] = op.data
    elif op.kind == "t":
        del data[op.offset :]
        data += bytes(op.offset - len(data))
    elif op.kind == "p":
        end = min(op.offset + op.length, len(data))
        data[op.offset : end] = bytes(max(0, end - op.offset))


class Disk:
    """The files below the recorder's root, as they are in memory and on the disk."""

    def __init__(self, image: Path) -> None:
        self.files: dict[str, File] = {}
        self.names: dict[str, dict[str, File]] = {}
        """Directory -> what its last fsync made durable. A directory among them is a file without content."""
        self.changes: dict[str, list[tuple[str, File | None]]] = {}
        self.folders = {image.name}
        for path in sorted(image.rglob("*")):
            name = str(path.relative_to(image.parent))
            if path.is_dir():
                self.folders.add(name)
            if path.is_dir() or path.name not in ("index.db-shm", "ballast"):
                file = self.files[name] = File(bytearray(b"" if path.is_dir() else path.read_bytes()))
                self.names.setdefault(os.path.dirname(name), {})[os.path.basename(name)] = file

    def _change(self, path: str, file: File | None) -> None:
        self.changes.setdefault(os.path.dirname(path), []).append((os.path.basename(path), file))

    def play(self, op: Op) -> None:
        if op.path.endswith(("index.db-shm", "ballast")):
            return
        if op.kind == "m":
            self.folders.add(op.path)
        if op.kind == "a":
            for path in sorted(self.folders | set(self.files)):
                self.play(Op("s", path, 0, b"", 0))
        elif op.kind in "mc":
            self.files[op.path] = File()
            self._change(op.path, self.files[op.path])
        elif op.kind == "u":
            self.files.pop(op.path, None)
            self._change(op.path, None)
        elif op.kind == "r":
            target = op.data.decode()
            self.files[target] = self.files.pop(op.path)
            self._change(op.path, None)
            self._change(target, self.files[target])
        elif op.kind == "s" and op.path in self.folders:
            for name, file in self.changes.pop(op.path, ()):
                apply_name(self.names.setdefault(op.path, {}), name, file)
        elif op.path in self.files:
            file = self.files[op.path]
            if op.kind == "s":
                file.durable = bytearray(file.state(None, all_of_it=True))
                file.waiting = []
            else:
                file.waiting.append(op)

    def build(self, target: Path, keep: random.Random | None) -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(exist_ok=True)
        (target / min(self.folders)).mkdir()
        for folder in sorted(self.folders):
            if not (target / folder).exists():
                continue
            names = dict(self.names.get(folder, {}))
            changes = self.changes.get(folder, [])
            for name, file in changes[: keep.randint(0, len(changes))] if keep is not None else ():
                apply_name(names, name, file)
            for name, file in names.items():
                if f"{folder}/{name}" in self.folders:
                    (target / folder / name).mkdir()
                else:
                    (target / folder / name).write_bytes(file.state(keep))


def apply_name(names: dict[str, File], name: str, file: File | None) -> None:
    if file is None:
        names.pop(name, None)
    else:
        names[name] = file


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Op], Packer]:
    """(image of the volume before, what was done, what packs hold)."""
    compiler = shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the recorder")
    base = tmp_path_factory.mktemp("power")
    library = base / "recorder.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "recorder.c", "-ldl", "-lpthread"], check=True
    )
    work = base / "work"
    (work / "volume").mkdir(parents=True)
    Volume(work / "volume").close()
    image = base / "image" / "volume"
    shutil.copytree(work / "volume", image)
    env = {**os.environ, "LD_PRELOAD": str(library), "RECORD_ROOT": str(work), "RECORD_LOG": str(base / "log")}
    words = [str(work / "volume"), str(work / "claims"), str(base / "packs")]
    subprocess.run(
        [sys.executable, "-m", "tests.unit.volume.power.workload", *words], env=env, check=True, cwd=ROOT_FOLDER
    )
    return image, parse((base / "log").read_bytes()), pickle.loads((base / "packs").read_bytes())


def states(image: Path, ops: list[Op], target: Path) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Rebuilds one disk after the other in `target`; what it is and what it may hold."""
    disk, allowed = Disk(image), {}
    step = max(1, len(ops) // CUTS)
    for number, op in enumerate(ops):
        if op.path == "claims":
            if op.kind == "w":
                allowed = json.loads(op.data)
            continue
        disk.play(op)
        if op.kind in "us":
            seeds: tuple[int | None, ...] = (None, number)
        else:
            seeds = () if number % step else (None,) if number // step % 2 else (number,)
        for seed in seeds:
            disk.build(target, None if seed is None else random.Random(seed))
            yield f"cut after call {number} ({op.kind} {op.path}), {'all' if seed is None else 'some'} lost", allowed


def check_first(directory: Path, when: str) -> None:
    """As `tonfs fsck`, before any mount."""
    with contextlib.closing(open_index(directory)) as db:
        found_lost = (f for f in check_content(db, directory, lambda *_: None) if f.kind == "content-lost")
        lost = [finding.text for finding in found_lost]
    assert not lost, f"{when}: a row says that bytes were on the disk that were not: {lost}"


def verify(directory: Path, packer: Packer, allowed: dict[str, list[str]], when: str) -> None:
    volume = Volume(directory)
    try:
        found = {os.fsdecode(path): row[3] for path, row in dump(volume, packer).items()}
        for path, contents in allowed.items():
            if path.startswith("@"):
                attr = volume.resolve([path[1:].encode()]) if path[1:] in found else None
                assert not attr or ABSENT in contents or digest(b"", attr.mtime_ns) in contents, f"{when}: {path}"
                continue
            here = found.get(path)
            what = ABSENT if path not in found else digest(here) if isinstance(here, bytes) else ANY
            assert what in contents or (ANY in contents and path in found), f"{when}: {path!r} is wrong"
        assert set(found) <= {path for path in allowed if not path.startswith("@")}, f"{when}: what never was is there"
        check(volume)
        evict_all(volume)
        after = {os.fsdecode(path): row[3] for path, row in dump(volume, packer).items()}
        assert after == found, f"{when}: eviction changed bytes"
    finally:
        volume.abandon()
    with contextlib.closing(open_index(directory)) as db:
        bad = [finding.text for finding in check_content(db, directory, lambda *_: None) if not finding.harmless]
    assert not bad, f"{when}: what is no damage is called so: {bad}"


@pytest.mark.allow_logs  # files are cut
@pytest.mark.timeout(400)  # on a machine with other work
def test_whatever_the_disk_lost_the_volume_opens_and_keeps_its_promises(
    recorded: tuple[Path, list[Op], Packer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, ops, packer = recorded
    monkeypatch.setattr(SpaceGuard, "_make", lambda guard: guard._ballast.touch())
    for name in ("fsync", "fdatasync"):  # nobody pulls the plug while we look
        monkeypatch.setattr(os, name, lambda _fd: None)
    count = 0
    for when, allowed in states(image, ops, tmp_path):
        if count % 3:
            check_first(tmp_path / "volume", when)
        verify(tmp_path / "volume", packer, allowed, when)
        count += 1
    assert count >= CUTS
    assert sum(op.kind == "s" for op in ops) > 50, "the recorder saw the fsyncs of SQLite and ours"


def test_the_disk_model_loses_what_was_not_fsynced(tmp_path: Path) -> None:
    image = tmp_path / "image" / "volume"
    image.mkdir(parents=True)
    (image / "f").write_bytes(b"old" * 2000)
    disk = Disk(image)
    disk.play(Op("w", "volume/f", 0, b"N" * 8192, 8192))
    disk.play(Op("c", "volume/g", 0, b"", 0))
    target = tmp_path / "target"
    disk.build(target, None)
    assert sorted(os.listdir(target / "volume")) == ["f"]
    assert (target / "volume" / "f").read_bytes() == b"old" * 2000
    seen = set()
    for seed in range(20):
        disk.build(target, random.Random(seed))
        data = (target / "volume" / "f").read_bytes()
        seen.add((data[:1], data[5000:5001], (target / "volume" / "g").exists()))
    assert len(seen) > 4
    disk.play(Op("s", "volume/f", 0, b"", 0))
    disk.play(Op("s", "volume", 0, b"", 0))
    disk.build(target, None)
    assert (target / "volume" / "f").read_bytes() == b"N" * 8192
    assert (target / "volume" / "g").exists()
