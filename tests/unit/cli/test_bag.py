"""`tonfs bag create`, `info` and `verify`, run as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tonfs.bagfiles import StoredBag, create_bag
from tonfs.cli.main import run

VECTOR_A = "d191c07445c59f22b1525008897f07398f341f3a7cf70ad3e2fd9ba4c8998571"


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONFS_BAG_STORE", str(tmp_path / "store"))


@pytest.fixture
def single(tmp_path: Path) -> Path:
    path = tmp_path / "single.txt"
    path.write_bytes(b"hello ton storage\n")
    return path


def test_create_prints_the_ids_as_json(single: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bag", "create", str(single), "--description", "vector a", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["schema"] == "tonfs.bag-create/1"
    assert value["bag_id"] == VECTOR_A
    assert value["root_hash"] == "8b390f6c56f979781422b55a24d8215ee59d0048031c555374a1a6e01ff342e9"
    assert value["header_hash"] == "988da0d59a8c318aed069aa832c32f6c90f47cd55ffcc2246b93ac75dfe5fc74"
    assert (value["piece_size"], value["size"]) == (131072, 76)


def test_create_prints_the_ids_for_a_person(single: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bag", "create", str(single), "--description", "vector a"]) == 0
    out = capsys.readouterr().out
    for key in ("bag_id", "root_hash", "header_hash", "piece_size", "size"):
        assert f"\n{key} " in "\n" + out
    assert VECTOR_A in out


def test_create_refuses_what_crashes_other_daemons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(bytes(8192 - 32 - 16 - len("file.bin")))
    assert run(["bag", "create", str(path), "--piece-size", "4K"]) == 5
    assert "crashes" in capsys.readouterr().err
    assert run(["bag", "create", str(path), "--piece-size", "4K", "--raw"]) == 0


def test_create_names_a_missing_path_and_a_bad_piece_size(tmp_path: Path, single: Path) -> None:
    assert run(["bag", "create", str(tmp_path / "nothing")]) == 3
    assert run(["bag", "create", str(single), "--piece-size", "1K"]) == 2


def test_info_shows_a_bag_directory_and_its_info_file(
    single: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    StoredBag.create(tmp_path / "bag", create_bag(single, description=b"vector a")).close()
    for path in (tmp_path / "bag", tmp_path / "bag" / "info.boc"):
        assert run(["bag", "info", str(path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["bag_id"] == VECTOR_A
    assert run(["bag", "info", str(tmp_path / "bag")]) == 0
    assert "single.txt" in capsys.readouterr().out


def test_verify_finds_a_changed_file(single: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    StoredBag.create(tmp_path / "bag", create_bag(single, description=b"vector a")).close()
    assert run(["bag", "verify", str(tmp_path / "bag")]) == 0
    single.write_bytes(b"hello ton torrent\n")
    capsys.readouterr()
    assert run(["bag", "verify", str(tmp_path / "bag"), "--json"]) == 6
    value = json.loads(capsys.readouterr().out)
    assert (value["ok"], value["bad"]) == (False, [0])


def test_verify_compares_a_path_with_a_bag_id(single: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = ["bag", "verify", str(single), "--bag-id", VECTOR_A.upper(), "--description", "vector a"]
    assert run(same) == 0
    assert run(["bag", "verify", str(single), "--bag-id", VECTOR_A]) == 6
    assert run(["bag", "verify", str(single), "--bag-id", "zz"]) == 2


def test_names_cannot_play_tricks_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "evil\x1b[2J\n").write_text("x")
    StoredBag.create(tmp_path / "bag", create_bag(tmp_path / "dir")).close()
    assert run(["bag", "info", str(tmp_path / "bag")]) == 0
    assert "\x1b" not in capsys.readouterr().out
