"""Reading the pages: shell blocks, inline commands, tables, links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PAGES: Final = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Command:
    """A command somewhere in a page; `whole` when it is a line to type, not words in a sentence."""

    page: str
    text: str
    whole: bool


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", read(page))


def shell_blocks(page: Path) -> list[str]:
    return [text for kind, text in _FENCE.findall(read(page)) if kind in ("sh", "shell", "bash", "console")]


def commands(page: Path, program: str) -> list[Command]:
    """Calls of `program` in shell blocks, and in code inside sentences."""
    found = []
    for block in shell_blocks(page):
        for line in block.splitlines():
            for part in re.split(r"&&|\|\||;|\$\(", re.sub(r"(^|\s)#.*", "", line)):
                if part.split()[:1] == [program]:
                    found.append(Command(page.name, part.strip(), whole=True))
    for code in re.findall(r"`([^`\n]+)`", prose(page)):
        if code.startswith(program + " "):
            found.append(Command(page.name, code, whole=False))
    return found


def tables(page: Path) -> list[list[list[str]]]:
    """Each table as rows of cells; the first row is its head."""
    out: list[list[list[str]]] = []
    inside = False
    for line in read(page).splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not inside:
            out.append([])
            inside = True
        if not set("".join(cells)) <= set("-: "):
            out[-1].append(cells)
    return out


def links(page: Path) -> list[str]:
    """Targets inside the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [t.partition("#")[0] for t in targets if "://" not in t and not t.startswith("#")]
