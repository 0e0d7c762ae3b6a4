from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.volume.helpers import check
from tonfs.ids import Inode
from tonfs.volume import ROOT, Volume


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "volume"
    path.mkdir()
    return path


@pytest.fixture
def volume(directory: Path) -> Iterator[Volume]:
    """An empty volume; after the test its index must agree with itself."""
    opened = Volume(directory)
    yield opened
    if not opened._closed:
        check(opened)
        opened.close()


@pytest.fixture
def tree(volume: Volume) -> dict[str, Inode]:
    """a/ with f and b/, which has g; h beside them; all dirty."""
    out: dict[str, Inode] = {"a": volume.mkdir(ROOT, b"a", 0o755, 0, 0).inode}
    out["b"] = volume.mkdir(out["a"], b"b", 0o755, 0, 0).inode
    for name, parent in (("f", out["a"]), ("g", out["b"]), ("h", ROOT)):
        out[name] = volume.create(parent, name.encode(), 0o644, 0, 0).inode
        volume.write(out[name], 0, name.encode() * 100)
    return out
