"""docs/mount.md against the code: options, fstab lines, levels; and the package files against the project."""

from __future__ import annotations

import re
import tomllib
from typing import Final

from tests.docs import pages
from tonfs.cli import helper
from tonfs.fuse import parse_options
from tonfs.fuse.options import OURS

PAGE: Final = pages.ROOT / "docs" / "mount.md"
DEBIAN: Final = pages.ROOT / "packaging" / "debian"


def table(head: str) -> list[list[str]]:
    (found,) = (rows for rows in pages.tables(PAGE) if rows[0][0] == head)
    return found[1:]


def test_every_option_of_ours_is_explained_and_every_one_on_the_page_is_taken() -> None:
    words = [word for row in table("option") for code in re.findall(r"`([^`]+)`", row[0]) for word in code.split()]
    names = {word.partition("=")[0] for word in words}
    assert names >= set(OURS)
    flags = [word for word in words if "=" not in word and "…" not in word]
    assert parse_options((",".join(flags),)).read_only


def test_fstab_lines_on_the_page_are_taken() -> None:
    lines = [line.split() for line in pages.read(PAGE).splitlines() if re.match(r"/\S+\s+/srv/\S+\s+tonfs ", line)]
    assert len(lines) == 3
    for line in lines:
        options = line[3].replace("uid=ann", "uid=root").replace("gid=ann", "gid=root")
        parse_options((options,))
        assert "_netdev" in options.split(","), "else a failing mount keeps the machine from booting"


def test_the_package_is_of_this_version_and_installs_what_there_is() -> None:
    version = tomllib.loads((pages.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert (DEBIAN / "changelog").read_text(encoding="utf-8").startswith(f"tonfs ({version}) ")
    rules = (DEBIAN / "rules").read_text(encoding="utf-8")
    for name in helper.LINKS:
        assert f"../lib/tonfs/bin/{helper.PROGRAM} debian/tonfs/usr/sbin/{name}\n" in rules
    for pattern in re.findall(r"tonfs/units/\S+", rules):
        assert list(pages.ROOT.glob(pattern)), pattern


def test_units_of_the_package_start_the_packages_program() -> None:
    for path in (pages.ROOT / "tonfs" / "units").glob("*/*.service"):
        assert f"\nExecStart={helper.PACKAGED} " in path.read_text(encoding="utf-8")
