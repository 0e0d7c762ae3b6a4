"""Lines of the log: one by one and in batches they are the same."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from tonfs import log


@pytest.fixture(params=["text", "json"])
def written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    log.configure(fmt=request.param)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def test_a_batch_writes_what_single_events_write(written: io.StringIO) -> None:
    log.get_logger("tonfs.x").info("request", operation="HeadObject", status=200, milliseconds=1.5)
    batch = log.Batch("tonfs.x", "request")
    batch.add(operation="HeadObject", status=200, milliseconds=1.5)
    assert written.getvalue().count("\n") == 1, "a batch waits"
    batch.flush()
    batch.flush()
    one, two = re.sub(r"\d\d:\d\d:\d\d", "", written.getvalue()).splitlines()
    assert one == two
    assert "HeadObject" in one


@pytest.mark.allow_logs
def test_an_error_brings_its_traceback(written: io.StringIO) -> None:
    try:
        raise ValueError("broken")
    except ValueError as exc:
        log.get_logger("tonfs.x").error("it failed", exc=exc)
    text = written.getvalue()
    assert "ValueError: broken" in (json.loads(text)["traceback"] if text.startswith("{") else text)
