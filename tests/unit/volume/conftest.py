from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.volume.helpers import check
from tonfs.volume import Volume


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
