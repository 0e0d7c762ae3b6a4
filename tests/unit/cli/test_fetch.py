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


def test_files_that_are_removed_meanwhile_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    volume = str(tmp_path / "v")
    assert main.run(["init", "--network", "none", "--volume", volume]) == 0
    monkeypatch.setattr("tonfs.cli.fetch.volume_paths", lambda *_: [])
    monkeypatch.setattr("tonfs.cli.fetch._files", lambda _: [tmp_path / "gone", tmp_path / "here"])
    (tmp_path / "here").write_bytes(b"bytes")
    capsys.readouterr()
    assert main.run(["fetch", str(tmp_path), "--json", "--volume", volume]) == 0
    assert '"bytes": 5' in capsys.readouterr().out
