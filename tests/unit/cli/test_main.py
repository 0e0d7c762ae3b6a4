"""The command line: exit codes, sentences instead of tracebacks, help that names every verb."""

from __future__ import annotations

import errno
import importlib
import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tonfs.agent.store import AgentStore
from tonfs.cli import main
from tonfs.cli.common import parse_duration, parse_size, show_table
from tonfs.errors import BY_CODE, Refused, UsageError
from tonfs.provider.store import ProviderStore
from tonfs.volume import Volume


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("TONFS_VOLUME", raising=False)
    monkeypatch.delenv("TONFS_DEBUG", raising=False)


def test_every_verb_is_there_and_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in main.VERBS:
        module = importlib.import_module(f"tonfs.cli.{verb.replace('-', '_')}")
        assert module.command.help, verb
    assert main.run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(verb in text for verb in main.VERBS)


def test_an_unknown_verb_names_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["statsu"]) == 2
    assert "'status'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "meant"), [(["bag", "crate"], "create"), (["agent", "rusume"], "resume"), (["s3", "key", "nwe"], "new")]
)
def test_an_unknown_verb_of_a_group_names_the_nearest_one(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(words) == 2
    assert f"Did you mean '{meant}'?" in capsys.readouterr().err
    assert main.run(["help", "statsu"]) == 3
    assert "Did you mean 'status'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["ledger"], ["contract", "list"], ["wallet", "show"], ["agent", "pause"], ["agent", "run"],
     ["contract", "show", "0:" + "00" * 32]],
)  # fmt: skip
def test_a_volume_without_network_has_no_agent_wallet_or_contracts(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["init", "--network", "none"]) == 0
    assert main.run(words) == 2
    assert "no network" in capsys.readouterr().err


def test_secrets_are_nobody_elses_to_read_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert main.run(["init", "--network", "devnet", "--volume", str(tmp_path / "v")]) == 0
        assert main.run(["s3", "key", "new", "--volume", str(tmp_path / "v")]) == 0
    finally:
        os.umask(before)
    for path in ((tmp_path / "v"), *(tmp_path / "v").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0, path
    for path in (tmp_path / "v" / "keys").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("network", ["testnet", "mainnet"])
def test_what_everybody_could_read_is_not_published_without_saying_so(
    network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["init", "--network", network, "--volume", str(tmp_path / "v")]) == 5
    assert "--plain" in capsys.readouterr().err
    assert not (tmp_path / "v").exists()
    assert main.run(["init", "--network", network, "--plain", "--volume", str(tmp_path / "v")]) == 0


@pytest.mark.parametrize("words", [["key", "new", "--bucket"], ["public", "add"]])
def test_what_no_bucket_can_be_called_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["init", "--network", "none"]) == 0
    for name in ("a/b", "x", ".hidden", "\udcff\udcff\udcff"):
        assert main.run(["s3", *words, name]) == 2
        assert "No bucket can be called" in capsys.readouterr().err
    assert main.run(["s3", *words, "pictures"]) == 0


def test_words_that_cannot_be_read_are_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["init", "--words-file", str(tmp_path / "absent")]) == 3
    assert main.run(["init", "--words-file", str(tmp_path)]) == 2
    assert "Error:" not in capsys.readouterr().err.replace("Usage", "")


def test_settings_are_shown_as_they_stand_in_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["init", "--network", "none"]) == 0
    assert main.run(["config", "show"]) == 0
    shown = tomllib.loads(capsys.readouterr().out)
    assert (shown["network"], shown["plain"]) == ("none", False)


def test_a_table_shows_everything_however_narrow_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    show_table(("name", "n"), [("x" * 60, 7), ("y", 1234)], right={"n"})
    assert capsys.readouterr().out.splitlines() == [f"name{' ' * 57}   n", f"{'x' * 60}    7", f"y{' ' * 60}1234"]


@pytest.mark.parametrize("words", [["status"], ["wait"], ["down"], ["ledger"], ["agent", "pause"]])
def test_without_a_volume_every_verb_says_so_in_a_sentence(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(words) == 3
    said = capsys.readouterr().err
    assert "There is no volume" in said
    assert "TF0003" in said
    assert "Traceback" not in said


def test_a_volume_whose_processes_do_not_run_shows_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    volume = tmp_path / "tonfs" / "default"
    volume.mkdir(parents=True)
    (volume / "config.toml").write_text('network = "devnet"\n', encoding="utf-8")
    assert main.run(["status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["schema"] == "tonfs.status/1"
    assert not status["mount"]["alive"]
    assert not status["agent"]["alive"]
    assert len(status["problems"]) == 2
    assert main.run(["ledger"]) == 4
    assert main.run(["down"]) == 4


def test_every_error_code_can_be_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for code in BY_CODE:
        assert main.run(["help", code]) == 0
        assert capsys.readouterr().out.startswith(f"{code}: ")
    assert main.run(["help", "TF9999"]) == 3


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("4K", 4096), ("4KiB", 4096), ("4kB", 4000), ("1g", 1 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("10m", 600), ("2h", 7200), ("30d", 2_592_000), ("5", 5)])
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-5s", "5 weeks", "1e3"])
def test_bad_sizes_and_durations_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)
    with pytest.raises(UsageError):
        parse_size(text)


@pytest.fixture
def not_mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A volume of root's, looked at by somebody else."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    volume = tmp_path / "v"
    assert main.run(["init", "--network", "devnet", "--volume", str(volume)]) == 0
    for folder in (*tmp_path.parents, tmp_path):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for name in (
        "cli.mount8",
        "cli.status",
        "cli.fsck",
        "cli.mount",
        "cli.s3",
        "cli.agent",
        "front",
        "control.report",
        "cli.devnet",
        "cli.bag_make",
    ):
        importlib.import_module(f"tonfs.{name}")  # somebody else may not be able to read Python's own files
    os.seteuid(65534)
    try:
        yield volume
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("words", [["status"], ["fsck"], ["mount", "m"], ["s3", "key", "list"], ["agent", "pause"]])
@pytest.mark.parametrize("open_folder", [False, True])
def test_a_volume_of_somebody_else_is_refused_in_a_sentence(
    not_mine: Path, words: list[str], open_folder: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if open_folder:
        os.seteuid(0)
        not_mine.chmod(0o755)
        (not_mine / "config.toml").chmod(0o644)
        os.seteuid(65534)
    capsys.readouterr()
    assert main.run(["--volume", str(not_mine), *words]) == 5
    said = capsys.readouterr().err
    assert "Permission denied" in said
    assert "internal error" not in said


@pytest.mark.parametrize(
    "words", [["devnet", "up", "--state"], ["init", "--volume"], ["bag", "create", "/etc/hostname", "--store"]]
)
def test_where_a_user_may_not_write_is_said_with_the_exit_code_for_permissions(
    not_mine: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([*words, str(not_mine / "new" / "place")]) == 5
    said = capsys.readouterr().err
    assert "Permission denied" in said
    assert "internal error" not in said


def test_an_index_that_may_not_be_written_is_no_damage(not_mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.seteuid(0)
    for path in (not_mine, not_mine / "run"):
        os.chown(path, 65534, 65534)
    Volume(not_mine).close()
    os.chown(not_mine, 0, 0)
    not_mine.chmod(0o755)
    os.chown(not_mine / "run" / "front.lock", 65534, 65534)
    (not_mine / "index.db").chmod(0o644)
    os.seteuid(65534)
    with pytest.raises(Refused, match="cannot be opened"):
        Volume(not_mine)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_internal_error(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", full)
    assert main.run(["--volume", str(tmp_path / "v"), "init", "--network", "none"]) == 0
    assert main.run(["--volume", str(tmp_path / "v"), "fsck"]) == 1
    said = capsys.readouterr().err
    assert "[TF0009]" in said
    assert "internal error" not in said


@pytest.mark.parametrize("store", [AgentStore, ProviderStore])
def test_a_database_of_somebody_else_says_which(not_mine: Path, store: type[AgentStore] | type[ProviderStore]) -> None:
    with pytest.raises(PermissionError) as caught:
        store(not_mine / "some.db")
    assert str(caught.value.filename).startswith(str(not_mine))
