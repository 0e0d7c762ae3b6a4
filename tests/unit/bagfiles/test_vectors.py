"""All 42 trees give the bags that the Go daemon prints, and those of the C++ daemon where it differs."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import VECTORS
from tonfs.bag import BagHeader, PieceTree, TorrentInfo, parse_one
from tonfs.bagfiles import CreatedBag, StoredBag, create_bag
from tonfs.errors import Refused
from tonfs.ids import bag_id

_PATH = VECTORS / "bags" / "vectors.json"


def _names() -> list[str]:
    if not _PATH.exists():
        return []
    return [case["name"] for case in json.loads(_PATH.read_text(encoding="utf-8"))["cases"]]


def _content(seed: str, size: int) -> bytes:
    return hashlib.shake_128(os.fsencode(seed)).digest(size)


def make_tree(scratch: Path, entries: list[dict[str, Any]]) -> None:
    for entry in entries:
        if "many" in entry:
            many = entry["many"]
            for i in range(many["count"]):
                path = scratch / many["name"].format(i=i, j=i // many["per_dir"])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_content(f"{many['seed']}/{i}", many["sizes"][i % len(many["sizes"])]))
            continue
        path = scratch / entry["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if "dir" in entry:
            path.mkdir(exist_ok=True)
        elif "link" in entry:
            path.symlink_to(entry["link"])
        elif "zeros" in entry:
            with open(path, "wb") as stream:
                stream.truncate(entry["zeros"])
        elif "text" in entry:
            path.write_bytes(entry["text"].encode())
        else:
            path.write_bytes(_content(entry["seed"], entry["size"]))


def check(created: CreatedBag, expect: dict[str, Any]) -> None:
    info, header = created.info, created.header.to_bytes()
    got = {
        "bag_id": info.bag_id.hex(),
        "root_hash": info.root_hash.hex(),
        "header_hash": info.header_hash.hex(),
        "piece_size": info.piece_size,
        "pieces": info.pieces,
        "file_size": info.file_size,
        "header_size": info.header_size,
        "files_count": len(created.header.names),
        "header_hex": header.hex(),
    }
    assert {key: got[key] for key in expect if key in got} == {key: expect[key] for key in expect if key in got}
    if expect.get("proofs"):
        tree = PieceTree(created.hashes)
        for proof in expect["proofs"]:
            ours, theirs = tree.proof(proof["piece"]), base64.b64decode(proof["boc"])
            assert parse_one(ours).hash == parse_one(theirs).hash
            assert ours == theirs, "the Go daemon's very bytes, too"


@pytest.fixture
def case(bag_vectors: list[dict[str, Any]], request: pytest.FixtureRequest) -> dict[str, Any]:
    return next(case for case in bag_vectors if case["name"] == request.param)


@pytest.mark.parametrize("case", _names(), indirect=True)
def test_a_vector_gives_the_bag_of_the_go_daemon(case: dict[str, Any], tmp_path: Path) -> None:
    make_tree(tmp_path / "in", case["tree"])
    path = tmp_path / "in" / case["path"]
    description = os.fsencode(case["description"])
    if case["expect"].get("refused"):
        for raw in (False, True):
            with pytest.raises(Refused):
                create_bag(path, description=description, piece_size=case["piece_size"], raw=raw)
    else:
        created = create_bag(path, description=description, piece_size=case["piece_size"], raw=True)
        check(created, case["expect"])
    if "expect_cpp" in case:
        check_cpp(case, path, description)


def check_cpp(case: dict[str, Any], path: Path, description: bytes) -> None:
    expect = case["expect_cpp"]
    size = case["piece_size"] or 131072
    if expect.get("refused"):
        with pytest.raises(Refused):
            create_bag(path, description=description, piece_size=size, order="sorted", raw=True)
        return
    check(create_bag(path, description=description, piece_size=size, order="sorted", raw=True), expect)


def test_there_are_forty_two_vectors(bag_vectors: list[dict[str, Any]]) -> None:
    assert len(bag_vectors) == 42


_DANGEROUS = {"exact", "hidden-root", "backslash", "long-description"}


def test_bags_that_harm_other_daemons_are_refused_unless_asked_for_raw(
    bag_vectors: list[dict[str, Any]], tmp_path: Path
) -> None:
    for case in bag_vectors:
        if case["expect"].get("refused") or "big" in case["tags"]:
            continue
        make_tree(tmp_path / case["name"], case["tree"])
        path, description = tmp_path / case["name"] / case["path"], os.fsencode(case["description"])
        if _DANGEROUS & set(case["tags"]):
            with pytest.raises(Refused):
                create_bag(path, description=description, piece_size=case["piece_size"])
        else:
            created = create_bag(path, description=description, piece_size=case["piece_size"])
            assert created.info.bag_id.hex() == case["expect"]["bag_id"]


def test_every_vector_can_be_kept_read_and_proved(bag_vectors: list[dict[str, Any]], tmp_path: Path) -> None:
    for case in bag_vectors:
        if case["expect"].get("refused") or {"big", "backslash"} & set(case["tags"]):
            continue
        make_tree(tmp_path / case["name"] / "in", case["tree"])
        created = create_bag(
            tmp_path / case["name"] / "in" / case["path"],
            description=os.fsencode(case["description"]),
            piece_size=case["piece_size"],
            raw=True,
        )
        stored = StoredBag.create(tmp_path / case["name"] / "bag", created)
        copy = StoredBag.prepare(tmp_path / case["name"] / "copy", bag_id(case["expect"]["bag_id"]))
        copy.set_info(created.info.to_boc())
        for index in range(created.info.pieces):
            copy.write_piece(index, stored.read_piece(index), stored.proof(index))
        assert copy.complete
        root = copy.data_root / os.fsdecode(created.header.dir_name)
        for name, original in created.files:
            assert (root / os.fsdecode(name)).read_bytes() == Path(os.fsdecode(original)).read_bytes()
        for bag in (stored, copy):
            bag.close()


# Vectors a, b, c of the reference, section 9.1: known only by their hashes.


def test_vector_a_of_the_reference(tmp_path: Path) -> None:
    (tmp_path / "single.txt").write_bytes(b"hello ton storage\n")
    created = create_bag(tmp_path / "single.txt", description=b"vector a")
    assert created.info.bag_id.hex() == "d191c07445c59f22b1525008897f07398f341f3a7cf70ad3e2fd9ba4c8998571"
    assert created.info.root_hash.hex() == "8b390f6c56f979781422b55a24d8215ee59d0048031c555374a1a6e01ff342e9"
    assert created.info.header_hash.hex() == "988da0d59a8c318aed069aa832c32f6c90f47cd55ffcc2246b93ac75dfe5fc74"
    assert created.header.to_bytes().hex() == (
        "b7aa2891010000000a00000000000000000000000000000064192ac8000000000a00000000000000"
        "120000000000000073696e676c652e747874"
    )


def test_vectors_b_and_c_of_the_reference_name_their_bags() -> None:
    """Their contents are not published; the hashes and sizes are, and c's header follows from its one name."""
    b = TorrentInfo(
        piece_size=131072,
        file_size=201_111,
        root_hash=bytes.fromhex("ec33c367e2324128faba316442f94e5f1d6168a5876f7e5ffa122addebbbdc4c"),
        header_size=105,
        header_hash=bytes.fromhex("371d3cabea17ef63c14432f6406fa243575f0b6d1bc155f4dd6742c7b83065c3"),
        description=b"vector b",
    )
    assert b.bag_id.hex() == "934711061fa943451ba77d7cadd80a9b07071d98eff355f93c35b06bfc6899e5"
    header = BagHeader(b"", (b"big.bin",), (1_048_593,))
    c = TorrentInfo(
        piece_size=131072,
        file_size=header.size + 1_048_593,
        root_hash=bytes.fromhex("bab73758595a68de4c5aad52d98005bbe889a335cf976673bae3c9c8edd5b922"),
        header_size=header.size,
        header_hash=hashlib.sha256(header.to_bytes()).digest(),
    )
    assert c.header_hash.hex() == "a89cfef4b2baa3006913eb9a9e4ca173e40629ed3ab156a406bbcf362ae5d0fe"
    assert c.bag_id.hex() == "c85934acd529e7b897a389a31388e5489e4eba45df364dfdbd3d7371e194595d"
    assert (b.pieces, c.pieces) == (2, 9)
