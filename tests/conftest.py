"""Shared fixtures. An unexpected WARNING in the logs fails the test that caused it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

VECTORS = Path(__file__).resolve().parent.parent.parent / "shared" / "vectors"

# In CI the same examples every time: what lands must not hang on luck. Elsewhere new ones each time, to find more.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") else "search")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "allow_logs: warnings and errors in the log are part of this test")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Keep(logging.WARNING)
    logging.getLogger("tonfs").addHandler(handler)
    try:
        result = yield
    finally:
        logging.getLogger("tonfs").removeHandler(handler)
    if records and item.get_closest_marker("allow_logs") is None:
        lines = "; ".join(f"{r.name}: {r.getMessage()} {getattr(r, 'fields', '')}" for r in records[:5])
        pytest.fail(f"unexpected log records: {lines}")
    return result


@pytest.fixture(scope="session")
def bag_vectors() -> list[dict[str, object]]:
    """The 42 trees whose bags the Go daemon printed; skips where the shared folder is absent."""
    path = VECTORS / "bags" / "vectors.json"
    if not path.exists():
        pytest.skip("shared/vectors/bags/vectors.json is not beside this checkout")
    cases: list[dict[str, object]] = json.loads(path.read_text(encoding="utf-8"))["cases"]
    return cases


@pytest.fixture
def root_and_fuse() -> None:
    """Tests of the kernel side need both; in CI they are always there."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("needs root and /dev/fuse")
