"""`tonfs fsck` as a user sees it. The kinds of damage: tests/unit/volume/test_fsck.py."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tonfs.cli import main
from tonfs.volume import ROOT, Volume


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "volume"
    assert main.run(["--volume", str(path), "init", "--network", "none"]) == 0
    volume = Volume(path)
    volume.write(volume.create(ROOT, b"file", 0o644, 0, 0).inode, 0, b"text")
    volume.close()
    return path


def damage(path: Path) -> None:
    db = sqlite3.connect(path / "index.db", isolation_level=None)
    db.execute("DELETE FROM name")
    db.close()


def fsck(path: Path, *words: str) -> int:
    try:
        return main.run(["--volume", str(path), "fsck", *words])
    except SystemExit as exc:
        return int(str(exc.code))


def test_exit_codes_say_what_was_found(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fsck(path) == 0
    assert "Nothing is wrong" in capsys.readouterr().out
    damage(path)
    assert fsck(path) == 6
    assert "--repair would put it into lost+found/#" in capsys.readouterr().out
    assert fsck(path) == 6
    assert fsck(path, "--repair") == 0
    assert "1 damaged places found, 1 mended" in capsys.readouterr().out
    assert fsck(path, "--level", "3") == 0


def test_json_says_the_same(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(path)
    capsys.readouterr()
    assert fsck(path, "--json") == 6
    said = json.loads(capsys.readouterr().out)
    assert (said["schema"], said["clean"], said["level"]) == ("tonfs.fsck/1", False, 1)
    (finding,) = said["findings"]
    assert (finding["kind"], finding["repaired"], finding["harmless"]) == ("unreachable", False, False)
    assert fsck(path, "--json", "--repair") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["clean"] is True
    assert said["findings"][0]["repaired"] is True


def test_a_volume_in_use_is_refused_with_what_to_do(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    volume = Volume(path)
    assert fsck(path) == 1
    assert "tonfs umount" in capsys.readouterr().err
    volume.close()
