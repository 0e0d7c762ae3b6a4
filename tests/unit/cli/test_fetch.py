"""`tonfs fetch` when a file does not come."""

from __future__ import annotations

from pathlib import Path

import pytest

from tonfs.cli import main


def test_a_file_that_cannot_be_had_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    volume = str(tmp_path / "v")
    assert main.run(["init", "--network", "none", "--volume", volume]) == 0
    monkeypatch.setattr("tonfs.cli.fetch.volume_paths", lambda *_: [])  # any file will do
    assert main.run(["fetch", "/proc/self/mem", "--volume", volume]) == 1  # whose first page nobody has
    said = capsys.readouterr().err
    assert "/proc/self/mem cannot be read: Input/output error." in said
    assert "internal error" not in said
