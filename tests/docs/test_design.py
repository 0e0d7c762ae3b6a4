"""The room table of docs/design.md, the packages, and the import contracts say the same."""

from __future__ import annotations

import ast
import itertools
import re
import tomllib
from typing import Any, Final

import pytest

from tests.docs import pages

DESIGN: Final = pages.ROOT / "docs" / "design.md"
PACKAGE: Final = pages.ROOT / "tonfs"
SPOKEN: Final = {
    "sqlite": ["sqlite3"],
    "any I/O package": ["os", "pathlib", "socket"],
    "chain's spending side": ["tonfs.chain.wallet", "tonfs.chain.intents"],
    "volume internals": ["tonfs.volume"],
}
"""Words of the table that are no module's name -> modules."""


def packages() -> set[str]:
    return {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def table() -> dict[str, list[str]]:
    """Room -> words of the column 'must not import'."""
    (found,) = (t for t in pages.tables(DESIGN) if t[0][0] == "folder")
    rooms = {}
    for folder, _, forbidden in found[1:]:
        match = re.match(r"`(\w+)/`$", folder)
        if match:
            rooms[match[1]] = [] if forbidden == "-" else [word.strip() for word in forbidden.split(",")]
    return rooms


def contracts() -> list[dict[str, Any]]:
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = project["tool"]["importlinter"]["contracts"]
    return found


def modules(word: str) -> list[str]:
    return SPOKEN.get(word) or [f"tonfs.{word}" if word in packages() else word]


def test_the_table_has_every_package_and_no_other() -> None:
    assert table().keys() == packages()


def test_the_top_modules_are_those_of_the_table() -> None:
    (found,) = (t for t in pages.tables(DESIGN) if t[0][0] == "folder")
    named = set(re.findall(r"`([a-z ]+)`$", found[1][0])[0].split())
    assert named == {p.stem for p in PACKAGE.glob("*.py") if not p.stem.startswith("__")}


@pytest.mark.parametrize("room", sorted(table()))
def test_what_a_room_must_not_import_is_a_contract(room: str) -> None:
    wanted = {module for word in table()[room] for module in modules(word)}
    kept = {m for c in contracts() if c["source_modules"] == [f"tonfs.{room}"] for m in c["forbidden_modules"]}
    assert wanted <= kept, wanted - kept


def test_contracts_speak_of_modules_that_exist() -> None:
    for contract in contracts():
        for module in [*contract["source_modules"], *contract["forbidden_modules"]]:
            if module.startswith("tonfs."):
                place = PACKAGE.joinpath(*module.split(".")[1:])
                assert place.is_dir() or place.with_suffix(".py").is_file(), module


def test_nobody_is_left_out_of_the_contracts_for_all() -> None:
    by_name = {c["name"]: c for c in contracts()}
    rooms = {f"tonfs.{name}" for name in packages()}
    assert set(by_name["Only the command line imports the command line"]["source_modules"]) == rooms - {"tonfs.cli"}
    top = by_name["Top modules know no room"]
    assert set(top["forbidden_modules"]) == rooms
    assert set(top["source_modules"]) == {
        f"tonfs.{p.stem}" for p in PACKAGE.glob("*.py") if not p.stem.startswith("__")
    }


def imports() -> set[tuple[str, str]]:
    """(room, another room that one of its modules imports)."""
    found = set()
    for path in PACKAGE.glob("*/**/*.py"):
        place = path.relative_to(PACKAGE).parent.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == len(place) + 1:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                found |= {(place[0], name.partition(".")[0]) for name in names if name}
    return {(a, b) for a, b in found if a != b and b in packages()}


def test_the_picture_of_rooms_is_that_of_the_imports() -> None:
    """Every arrow of the second picture is an import, and every import follows from the arrows."""
    picture = pages.read(DESIGN).split("```mermaid")[2].partition("```")[0]
    arrows = []
    for line in picture.splitlines():
        sides = [[name.strip() for name in side.split("&")] for side in re.split(r"--+>", line)]
        arrows += [(a, b) for left, right in itertools.pairwise(sides) for a in left for b in right]
    rooms = table()
    assert [(a, b) for a, b in arrows if a not in rooms or b not in rooms or b in rooms[a]] == []
    reached: dict[str, set[str]] = {room: {room} for room in rooms}
    for _ in rooms:
        for a, b in arrows:
            reached[a] |= reached[b]
    real = imports()
    assert [arrow for arrow in arrows if arrow not in real] == [], "arrows that no import stands behind"
    assert [(a, b) for a, b in real if b not in reached[a]] == [], "imports that the picture does not show"


@pytest.mark.parametrize("room", sorted(packages()))
def test_a_room_says_what_it_is_for(room: str) -> None:
    text = (PACKAGE / room / "__init__.py").read_text(encoding="utf-8")
    assert text.startswith('"""'), "a room begins with a sentence about itself"
