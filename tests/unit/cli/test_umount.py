from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tonfs.cli import umount


@pytest.mark.parametrize(
    ("answer", "words"),
    [({"bytes": {"dirty": 5 << 20}}, "Writing what programs left: 4.0 MiB so far"), (None, "Writing the last of it")],
)
def test_a_long_unmount_says_how_far_it_is(
    answer: dict[str, dict[str, int]] | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(umount, "SAY_EVERY", 0.001)
    monkeypatch.setattr(umount, "_status", lambda volume: answer)
    said: list[str] = []
    twice = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        if len(said) > 1:
            twice.set()

    with umount._Watch(Path("/v"), {"bytes": {"dirty": 1 << 20}}, say):
        assert twice.wait(30.0)
    assert said[0].startswith(words)
