"""`tonfs bag create`, `info` and `verify`, run as a user runs them."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from tonfs.bag import BagHeader, PieceTree
from tonfs.bagfiles import StoredBag, create_bag
from tonfs.bagfiles.create import describe
from tonfs.bagfiles.store import BagStore
from tonfs.cli.bag_seed import _all_seedable
from tonfs.cli.main import run
from tonfs.errors import BadBag, NotFound
from tonfs.ids import BagId

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


def hostile(tmp_path: Path) -> BagId:
    """A bag in the store whose header leads out of its folder; every piece is here."""
    header = BagHeader(b"", (b"../a",), (4,))
    data = header.to_bytes() + b"data"
    info = describe(header, PieceTree([sha256(data).digest()]), 1 << 17)
    bag = BagStore(tmp_path / "store").prepare(info.bag_id, None)
    bag.set_info(info.to_boc())
    with pytest.raises(BadBag):
        bag.write_piece(0, data, PieceTree([sha256(data).digest()]).proof(0))
    bag.close()
    return info.bag_id


def test_a_bag_that_can_never_be_unpacked_is_not_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = hostile(tmp_path)
    assert run(["bag", "verify", bag.hex()]) == 6
    assert "never" in capsys.readouterr().err
    assert run(["bag", "info", bag.hex(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problem"]


def test_verify_counts_what_is_claimed_without_walking_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pieces = 3_000_000
    header = BagHeader(b"", (b"a",), (pieces * 4096 - 100,))
    info = describe(header, PieceTree([bytes(32)]), 4096)
    info = replace(info, file_size=pieces * 4096)
    stored = BagStore(tmp_path / "store").prepare(info.bag_id, None)
    stored.set_info(info.to_boc())
    assert list(stored.here()) == []
    stored.close()
    assert run(["bag", "verify", info.bag_id.hex(), "--json"]) == 6
    assert json.loads(capsys.readouterr().out)["missing"] == pieces


def test_a_piece_size_of_zero_is_refused(single: Path) -> None:
    assert run(["bag", "create", str(single), "--piece-size", "0"]) == 2


def test_an_interrupted_create_says_how_to_go_on(
    single: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tonfs.cli.bag_make.create_bag", interrupted)
    assert run(["bag", "create", str(single)]) == 130
    assert "same command" in capsys.readouterr().err


def test_seed_refuses_a_bad_network_file_before_anything_starts(
    single: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bag", "create", str(single)]) == 0
    (tmp_path / "bad.json").write_text("no json")
    assert run(["bag", "seed", "--global-config", str(tmp_path / "bad.json")]) == 2
    assert run(["bag", "seed", "--global-config", str(tmp_path / "none.json")]) == 3
    assert not (tmp_path / "store" / "log").exists()


def test_one_bad_bag_does_not_keep_the_others_from_being_seeded(
    single: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = BagStore(tmp_path / "store")
    good, bad = store.keep(create_bag(single)), store.keep(create_bag(single, description=b"other"))
    (bad / "header.bin").write_bytes(b"cut")
    store.prepare(BagId(bytes(32)), None).close()
    assert list(_all_seedable(store).values()) == [good]
    assert bad.name in capsys.readouterr().err
    (good / "header.bin").write_bytes(b"cut")
    with pytest.raises(NotFound):
        _all_seedable(store)
