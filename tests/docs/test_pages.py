"""What the pages say to type exists; what they point at is there; what they explain is complete."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import click
import pytest

from tests.docs import pages
from tonfs import errors
from tonfs.cli import main

TARGETS = set(re.findall(r"^([a-z-]+):", (pages.ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
HAND_WRITTEN = [page for page in pages.PAGES if page.name != "cli.md"]
by_page = pytest.mark.parametrize("page", HAND_WRITTEN, ids=lambda page: page.name)


def spelled_out(text: str) -> list[list[str]]:
    """The words of a command; `a|b` stands for two commands, `<x>`, `…` and `[x]` for something to fill in."""
    words = shlex.split(re.sub(r"\[(--[\w-]+)\]", r"\1", text))
    return [list(choice) for choice in itertools.product(*(re.split(r"(?<=\w)\|(?=\w)", word) for word in words))]


def complaint(words: list[str], whole: bool) -> str | None:
    """Why click would not take this, or None. Only names are looked at: nothing runs, no file is opened."""
    command: click.Command = main.root
    context = click.Context(command, info_name=words[0])
    args = words[1:]
    while True:
        try:
            values, rest, _ = command.make_parser(context).parse_args(list(args))
            problem = _wrong_value(command, values) or (_left_out(command, values) if whole else None)
            if problem:
                return problem
            if not isinstance(command, click.Group):
                return f"one word too many: {rest[0]!r}" if rest else None
            if not rest:
                return None if not whole or "--help" in args else "a verb is missing"
            name, below, args = command.resolve_command(context, rest)
        except click.UsageError as exc:
            return exc.format_message()
        if below is None:
            return f"there is no {rest[0]!r}"
        command, context = below, click.Context(below, info_name=name, parent=context)


def _wrong_value(command: click.Command, values: dict[str, Any]) -> str | None:
    for parameter in command.params:
        value = values.get(parameter.name or "")
        if isinstance(parameter.type, click.Choice) and isinstance(value, str) and value not in parameter.type.choices:
            return f"{value!r} is no choice of {parameter.name}"
    return None


def _left_out(command: click.Command, values: dict[str, Any]) -> str | None:
    for parameter in command.params:
        value = values.get(parameter.name or "")
        given = bool(value) if isinstance(value, (str, tuple, list)) else False
        if isinstance(parameter, click.Argument) and parameter.required and not given:
            return f"{parameter.name} is missing"
    return None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("tonfs frobnicate", "frobnicate"),
        ("tonfs status --loud", "--loud"),
        ("tonfs devnet upp", "upp"),
        ("tonfs init --network moon", "moon"),
        ("tonfs devnet fault", "missing"),
        ("tonfs down now", "now"),
    ],
)
def test_a_command_that_does_not_exist_would_be_found(text: str, word: str) -> None:
    assert word in (complaint(shlex.split(text), whole=True) or "")


@by_page
def test_every_tonfs_command_on_the_page_is_one(page: Path) -> None:
    wrong = []
    for command in pages.commands(page, "tonfs"):
        if re.search(r"[<#…]", command.text):
            continue
        for words in spelled_out(command.text):
            problem = complaint(words, command.whole)
            if problem:
                wrong.append(f"{' '.join(words)}: {problem}")
    assert not wrong


@by_page
def test_every_make_target_on_the_page_is_one(page: Path) -> None:
    named = {command.text.split()[1] for command in pages.commands(page, "make")}
    assert named <= TARGETS


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert [link for link in pages.links(page) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_error_codes_on_the_page_exist(page: Path) -> None:
    assert set(re.findall(r"TF\d{4}", pages.read(page))) <= errors.BY_CODE.keys()


def test_the_readme_has_a_tour_that_is_checked() -> None:
    typed = pages.commands(pages.ROOT / "README.md", "tonfs")
    assert len([c for c in typed if c.whole]) >= 8
    assert {c.text.split()[1] for c in pages.commands(pages.ROOT / "README.md", "make")} >= {"demo", "test"}


def test_the_command_page_is_fresh() -> None:
    argv = [sys.executable, str(pages.ROOT / "scripts" / "cli_docs.py"), "--check"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("code", sorted(errors.BY_CODE))
def test_help_explains_every_error_code(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["help", code]) == 0
    said = capsys.readouterr().out
    explanation = said.partition(f"{code}: ")[2]
    assert len(explanation.split()) > 5
    assert f"Exit code {errors.BY_CODE[code].exit_code};" in said


def test_no_two_errors_share_a_code() -> None:
    codes = re.findall(
        r'^    code = "(TF\d{4})"', (pages.ROOT / "tonfs" / "errors.py").read_text(encoding="utf-8"), re.M
    )
    assert len(codes) == len(set(codes))
    assert {*codes, errors.TonfsError.code} == errors.BY_CODE.keys()


def test_exit_codes_in_use_are_explained_on_the_command_page() -> None:
    head = pages.read(pages.ROOT / "docs" / "cli.md").partition("###")[0]
    explained = {int(number) for number in re.findall(r"\b(\d{1,3}) [a-z]", head)}
    assert {cls.exit_code for cls in errors.BY_CODE.values()} <= explained


async def _served() -> dict[str, set[str]]:
    """Socket -> methods, as the processes register them."""
    from tonfs.agent.main import control_handlers as agent_handlers
    from tonfs.devnet import handlers as devnet_handlers
    from tonfs.front.methods import Methods
    from tonfs.front.s3_methods import S3Methods
    from tonfs.network.peer_control import node_handlers
    from tonfs.provider.service import control_handlers as provider_handlers

    any_: Any = MagicMock()
    caught: dict[str, Any] = {}

    async def serve(_path: Path, methods: dict[str, Any], **_rest: Any) -> None:
        caught.update(methods)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devnet_handlers, "serve", serve)
        await devnet_handlers.Handlers(any_).serve(Path("control.sock"))
    return {
        "front.sock": {*Methods(any_, any_, any_, any_).handlers(), *S3Methods(any_).handlers()},
        "agent.sock": {*agent_handlers(any_), "shutdown"},
        "peer.sock": {*node_handlers(any_, any_, any_, any_), "shutdown"},
        "control.sock": set(caught),
        "provider.sock": set(provider_handlers(any_, any_, any_, any_, any_)),
    }


async def test_the_control_page_names_every_method_and_no_other() -> None:
    told: dict[str, set[str]] = {}
    for section in re.split(r"^## ", pages.read(pages.ROOT / "docs" / "control.md"), flags=re.M)[1:]:
        (socket,) = re.findall(r"(\w+\.sock)", section.partition("\n")[0])
        rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section, re.M)
        told[socket] = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert told == await _served()


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_no_page_names_a_path_of_a_developers_machine(page: Path) -> None:
    assert not re.search(r"(?<![\w.])/(work|root|tmp|home)/", pages.read(page))


def test_every_verb_is_on_the_command_page() -> None:
    text = pages.read(pages.ROOT / "docs" / "cli.md")
    assert all(f"### `tonfs {verb}" in text for verb in main.VERBS)
