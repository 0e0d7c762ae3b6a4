"""The mounts of tests/fuse, to be killed."""

from __future__ import annotations

from tests.fuse.conftest import mounted

__all__ = ["mounted"]
