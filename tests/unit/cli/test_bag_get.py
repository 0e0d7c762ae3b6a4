"""`tonfs bag get` without a network: what is here is checked, and single files are taken out safely."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from tonfs.bagfiles import StoredBag, create_bag
from tonfs.cli import bag_get
from tonfs.cli.main import run

LONG = "\u00e9" * 127
"""A name of 254 bytes: nothing can be put around it."""


@pytest.fixture
def bag(tmp_path: Path) -> str:
    """A store with a bag that was downloaded whole."""
    root = tmp_path / "source" / "photos"
    root.mkdir(parents=True)
    for name in ("a", LONG):
        (root / name).write_bytes(os.urandom(10_000))
    seed = StoredBag.create(tmp_path / "seed", create_bag(root, piece_size=4096))
    assert seed.info is not None
    copy = StoredBag.prepare(tmp_path / "store" / "bags" / seed.bag_id.hex(), seed.bag_id)
    copy.set_info(seed.info.to_boc())
    for index in range(seed.info.pieces):
        copy.write_piece(index, seed.read_piece(index), seed.proof(index))
    copy.close()
    return seed.bag_id.hex()


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, bag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StoredBag, "read_piece", pressed)
    assert get(tmp_path, bag) == 130
    assert "same command" in capsys.readouterr().err


def get(tmp_path: Path, bag: str, *words: str) -> int:
    return run(["bag", "get", bag, "--store", str(tmp_path / "store"), *words])


def offline(tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "global.config.json"
    path.write_text('{"dht": {"static_nodes": {"nodes": []}}}', encoding="ascii")
    return ("--global-config", str(path), "--timeout", "1s")


@pytest.mark.parametrize("name", ["a", LONG])
def test_a_file_is_taken_out(tmp_path: Path, bag: str, name: str) -> None:
    assert get(tmp_path, bag, "--file", name, "--to", str(tmp_path / "to")) == 0
    assert (tmp_path / "to" / "photos" / name).read_bytes() == (tmp_path / "source" / "photos" / name).read_bytes()
    assert os.listdir(tmp_path / "to" / "photos") == [name]


def test_nothing_is_written_through_links_and_a_draft_of_the_user_stays(tmp_path: Path, bag: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "to" / "photos").mkdir(parents=True)
    (tmp_path / "to" / "photos" / ".a.part").symlink_to(victim)
    assert get(tmp_path, bag, "--file", "a", "--to", str(tmp_path / "to")) == 0
    assert victim.read_bytes() == b"mine"
    assert not (tmp_path / "to" / "photos" / "a").is_symlink()
    (tmp_path / "outside").mkdir()
    (tmp_path / "led").mkdir()
    (tmp_path / "led" / "photos").symlink_to(tmp_path / "outside")
    assert get(tmp_path, bag, "--file", "a", "--to", str(tmp_path / "led")) != 0
    assert os.listdir(tmp_path / "outside") == []


def test_a_full_disk_leaves_no_draft_of_a_file_that_is_taken_out(
    tmp_path: Path, bag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(fd: int, data: bytes, offset: int) -> None:
        if offset:
            raise OSError(errno.ENOSPC, "No space left on device")
        os.pwrite(fd, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(bag_get, "write_all", full)
        assert get(tmp_path, bag, "--file", "a", "--to", str(tmp_path / "to")) == 1
    said = capsys.readouterr().err
    assert f"disk is full (writing {tmp_path / 'to' / 'photos' / 'a'})" in said
    assert "is kept" in said
    assert os.listdir(tmp_path / "to" / "photos") == []
    assert get(tmp_path, bag, "--file", "a", "--to", str(tmp_path / "to")) == 0


def test_names_that_are_not_utf8_have_lone_surrogates_in_json_and_are_escaped_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    (root / os.fsdecode(b"\xff\x1b.txt")).write_bytes(b"bytes")
    seed = StoredBag.create(tmp_path / "seed", create_bag(root))
    assert run(["bag", "info", str(seed.directory), "--json"]) == 0
    said = capsys.readouterr().out
    assert said.isascii()
    assert os.fsencode(json.loads(said)["files"][0]["name"]) == b"\xff\x1b.txt"
    assert run(["bag", "info", str(seed.directory)]) == 0
    assert "5 \\udcff\\x1b.txt" in capsys.readouterr().out


@pytest.mark.parametrize("words", [(), ("--file", "a")])
def test_what_rotted_is_never_called_done(
    tmp_path: Path, bag: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "store" / "bags" / bag / "files" / "photos" / "a"
    assert get(tmp_path, bag) == 0
    file.write_bytes(b"x" * file.stat().st_size)
    assert get(tmp_path, bag, *words, *offline(tmp_path)) == 7


def test_deleted_files_are_never_called_there(tmp_path: Path, bag: str) -> None:
    (tmp_path / "store" / "bags" / bag / "files" / "photos" / "a").unlink()
    assert get(tmp_path, bag, *offline(tmp_path)) == 7
