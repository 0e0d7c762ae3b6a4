from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tonfs.cli import umount


@pytest.mark.parametrize(
    ("answer", "words"),
    [({"bytes": {"dirty": 5 << 20}}, "Writing what programs left: 4.0 MiB so far"), (None, "Writing to the disk, 0 s")],
)
def test_a_long_unmount_says_how_far_it_is(
    answer: dict[str, dict[str, int]] | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(umount, "LOOK_EVERY", 0.001)
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


def test_where_lines_stay_only_some_are_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(umount.time, "monotonic", lambda: now[0])
    line = umount.Line(quiet=False)
    for second in range(12):
        now[0] = 100.0 + second
        line(f"{second} s")
    line.end()
    assert capsys.readouterr().err == "0 s\n5 s\n10 s\n"
    umount.Line(quiet=True)("no")
    assert capsys.readouterr().err == ""
