"""The helper of mount(8), without a mount."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tonfs.cli import main, mount8
from tonfs.config import volume_path
from tonfs.errors import NotFound, Refused, TonfsError, UsageError


def test_a_call_of_mount_is_read() -> None:
    got = mount8.parse_call(["ton:///v", "/mnt", "-s", "-n", "-v", "-o", "rw,_netdev", "-t", "fuse.tonfs"])
    assert got == mount8.Call("ton:///v", Path("/mnt"), ("rw,_netdev",), sloppy=True, fake=False, verbose=True)
    assert mount8.parse_call(["-f", "v", "d"]).fake


@pytest.mark.parametrize("argv", [[], ["v"], ["v", "d", "e"], ["v", "d", "-q"], ["v", "d", "-o"]])
def test_a_wrong_call_exits_with_1(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert mount8.run_mount(argv) == 1
    assert capsys.readouterr().err.startswith("mount.tonfs: ")


def test_a_fake_mount_does_nothing(tmp_path: Path) -> None:
    assert mount8.run_mount([str(tmp_path / "no volume"), str(tmp_path / "no mount"), "-f", "-o", "frobnicate"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_volume_that_is_not_there_is_a_failure_not_a_usage_error(tmp_path: Path) -> None:
    assert mount8.run_mount([str(tmp_path / "v"), str(tmp_path)]) == 32


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 1), (OSError(12, "no memory"), 2), (KeyError("bug"), 4), (KeyboardInterrupt(), 8),
        (NotFound("x"), 32), (Refused("x"), 32), (TonfsError("x"), 32),
    ],
)  # fmt: skip
def test_exit_codes_are_those_of_mount8(error: BaseException, code: int) -> None:
    def fail() -> None:
        raise error

    assert mount8.guarded("mount.tonfs", fail) == code


def test_the_source_names_a_volume_unless_the_option_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert mount8.volume_named("/var/lib/tonfs/x", None) == Path("/var/lib/tonfs/x")
    assert mount8.volume_named("photos", None) == volume_path("photos") == Path("/data/tonfs/photos")
    assert mount8.volume_named("ton:///a%20b", None) == Path("/a b")
    assert mount8.volume_named("none", "/v") == Path("/v")
    with pytest.raises(UsageError, match="names no volume"):
        mount8.volume_named("none", None)


def test_mount_fuse_calls_tonfs_itself(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main.run([str(tmp_path / "v"), str(tmp_path), "-o", "rw,dev,suid"]) == 32
    assert "There is no volume" in capsys.readouterr().err
    assert main.run([str(tmp_path / "v"), str(tmp_path), "-o", "cachesize=1"]) == 1
    assert "cache_size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "all_of_them"),
    [("mount -a", True), ("/bin/mount -av", True), ("mount -T f -a -F", True), ("mount --all", True),
     ("mount /srv/a", False), ("mount -t tonfs a b", False), ("-a", False), ("cat -a", False)],
)  # fmt: skip
def test_mount_a_is_told_by_the_call(words: str, all_of_them: bool) -> None:
    argv = words.split()
    with subprocess.Popen(
        [argv[0], "-c", "import time; time.sleep(60)", *argv[1:]], executable=sys.executable
    ) as parent:
        try:
            while not Path(f"/proc/{parent.pid}/cmdline").read_bytes():  # its program begins just now
                pass
            assert mount8.mounts_all(parent.pid) == all_of_them
        finally:
            parent.kill()


def test_help_and_version_are_no_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert mount8.run_mount(["--help"]) == 0
    assert "SOURCE DIR" in capsys.readouterr().out
    assert mount8.run_mount(["-V"]) == 0


def test_a_file_where_the_volume_or_its_log_should_be_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "mnt").mkdir()
    assert mount8.run_mount([str(tmp_path / "file"), str(tmp_path / "mnt")]) == 32
    assert "There is no volume" in capsys.readouterr().err
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "config.toml").write_text('network = "none"\n', encoding="ascii")
    (tmp_path / "v" / "log").touch()
    assert mount8.run_mount([str(tmp_path / "v"), str(tmp_path / "mnt")]) == 32
    assert "cannot be written, which a mount needs" in capsys.readouterr().err


@pytest.mark.parametrize("link", ["loop", "x/loop"])
def test_links_that_lead_nowhere_and_empty_words_are_refused(tmp_path: Path, link: str, volume_dir: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / link).symlink_to(tmp_path / link)
    assert mount8.run_mount([str(volume_dir), str(tmp_path / link)]) == 32
    assert mount8.run_mount(["", str(tmp_path)]) == 1
    assert mount8.run_mount([str(volume_dir), ""]) == 1


@pytest.fixture
def volume_dir(tmp_path: Path) -> Path:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "config.toml").write_text('network = "none"\n', encoding="ascii")
    return tmp_path / "volume"
