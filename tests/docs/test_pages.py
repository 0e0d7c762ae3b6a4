"""The pages say what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from tonfs.cli.main import VERBS, root

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text: str) -> list[list[str]]:
    """`tonfs ...` lines of shell blocks, split into words, without comments."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            words = line.split("#")[0].split()
            if words and words[0] == "tonfs":
                found.append(words[1:])
    return found


def check(words: list[str]) -> None:
    """Verb and options exist. Raises AssertionError."""
    command: click.Command = root
    context = click.Context(root)
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            known = {o for p in [*command.params, *root.params] for o in p.opts}
            assert word.split("=")[0] in known, f"{word} in tonfs {' '.join(words)}"
            option = next(p for p in [*command.params, *root.params] if word.split("=")[0] in p.opts)
            if isinstance(option, click.Option) and not option.is_flag and "=" not in word:
                rest.pop(0)
        elif isinstance(command, click.Group):
            below = command.get_command(context, word)
            assert below is not None, f"{word} in tonfs {' '.join(words)}"
            command = below


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_shown_exists(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        check(words)


def test_the_readme_shows_commands_at_all() -> None:
    assert len(commands((ROOT / "README.md").read_text(encoding="utf-8"))) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_command_page_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "cli_docs.py", "--check"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert f"\n{target}:" in makefile, target


def test_the_room_table_names_exactly_the_packages_that_exist() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    table = text[text.index("## 3. Rooms") : text.index("## 4. Lives")]
    named = set(re.findall(r"^\| `([a-z0-9]+)/` \|", table, re.MULTILINE))
    packages = {p.parent.name for p in (ROOT / "tonfs").glob("*/__init__.py")}
    assert named == packages


def test_every_room_has_an_import_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    bound = {m for c in project["tool"]["importlinter"]["contracts"][:-1] for m in c["source_modules"]}
    packages = {f"tonfs.{p.parent.name}" for p in (ROOT / "tonfs").glob("*/__init__.py")}
    assert packages - bound == {"tonfs.cli", "tonfs.control"}


def test_every_method_of_the_sockets_is_on_the_page() -> None:
    page = (ROOT / "docs" / "control.md").read_text(encoding="utf-8")
    sources = (
        "front/methods.py",
        "agent/main.py",
        "network/peer_control.py",
        "devnet/handlers.py",
        "provider/service.py",
    )
    for source in sources:
        text = (ROOT / "tonfs" / source).read_text(encoding="utf-8")
        names = set(re.findall(r'^\s+"([a-z_]+)": (?:self\.)?\1,', text, re.MULTILINE))
        assert names or source.endswith(("peer_control.py", "service.py"))
        for name in names:
            assert re.search(rf"`{name}[`{{]", page), f"{name} of {source}"


def test_no_page_names_a_path_of_a_developers_machine() -> None:
    for page in PAGES:
        assert not re.search(r"/(work|root|tmp)/", page.read_text(encoding="utf-8")), page.name


def test_every_verb_is_on_the_command_page() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert all(f"### `tonfs {verb}" in text for verb in VERBS)
