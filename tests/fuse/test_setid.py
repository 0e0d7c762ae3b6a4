"""Set-id bits and file capabilities go when somebody else changes the file, and stay when they may."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .front import Mounted

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

SOMEBODY = (
    "import os, sys\n"
    "path = sys.argv[1]\n"
    "inherited = int(sys.argv[2]) if len(sys.argv) > 2 else None\n"
    "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
)
ACTS = {
    "write": "fd = os.open(path, os.O_WRONLY); os.pwrite(fd, b'X', 1); print(os.fstat(fd).st_mode)",
    "cut": "os.truncate(path, 1); print(os.stat(path).st_mode)",
    "cut by open": "fd = os.open(path, os.O_WRONLY | os.O_TRUNC); print(os.stat(path).st_mode)",
    "cut by create": "fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600); print(os.stat(path).st_mode)",
    "write to what root opened": "os.pwrite(inherited, b'X', 1); print(os.stat(path).st_mode)",
}


@pytest.fixture(scope="module")
def point(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    mounted = Mounted(tmp_path_factory.mktemp("setid")).start()
    for parent in (mounted.point, *mounted.point.parents):
        if parent.stat().st_mode & 0o005 != 0o005:
            parent.chmod(0o755)
    yield mounted.point
    mounted.stop()


def make(path: Path, mode: int, data: bytes = b"data") -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("size", [4, 100_000])
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(("before", "after"), [(0o6777, 0o777), (0o4666, 0o666), (0o2777, 0o777)])
def test_somebody_elses_change_clears_them(point: Path, act: str, before: int, after: int, size: int) -> None:
    path = make(point / f"{act} {before:o} {size}", before, b"d" * size)
    fd = os.open(path, os.O_WRONLY)
    try:
        code = SOMEBODY + ACTS[act]
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), str(fd)],
            capture_output=True, text=True, check=True, pass_fds=[fd], timeout=60,
        )  # fmt: skip
        assert stat.S_IMODE(int(done.stdout)) == after, "seen at once by who did it"
        assert mode_of(path) == after
    finally:
        os.close(fd)
    wanted = {"write": b"dX", "cut": b"d", "write to what root opened": b"dX"}.get(act, b"")
    assert path.read_bytes()[:2] == wanted


def test_set_group_id_without_execution_by_the_group_means_something_else(point: Path) -> None:
    path = make(point / "lock", 0o2666)
    subprocess.run([sys.executable, "-c", SOMEBODY + ACTS["write"], str(path)], check=True, capture_output=True)
    assert mode_of(path) == 0o2666


def test_a_new_owner_clears_them(point: Path) -> None:
    path = make(point / "given", 0o6755)
    os.chown(path, 1, -1)
    assert mode_of(path) == 0o755
    path.chmod(0o6755)
    os.chown(path, -1, 1)
    assert mode_of(path) == 0o755
    path.chmod(0o2644)
    os.chown(path, 2, 2)
    assert mode_of(path) == 0o2644
    folder = point / "folder"
    folder.mkdir()
    folder.chmod(0o2775)
    os.chown(folder, 1, 1)
    assert mode_of(folder) == 0o2775


def test_root_may_cut_and_what_was_written_before_a_chmod_does_not_count(point: Path) -> None:
    path = make(point / "tool", 0o4755)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"x" * 50_000)
    os.fchmod(fd, 0o4755)
    os.close(fd)
    os.sync()
    assert mode_of(path) == 0o4755
    os.truncate(path, 100)
    assert mode_of(path) == 0o4755
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    assert mode_of(path) == 0o4755


def test_a_write_of_root_clears_them_too(point: Path) -> None:
    """Linux would not. We are not told who writes (docs/posix.md); this also says that the kernel left it to us."""
    path = make(point / "patched", 0o4755)
    fd = os.open(path, os.O_WRONLY)
    os.pwrite(fd, b"X", 1)
    os.fsync(fd)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o755
    os.close(fd)


def test_file_capabilities_go_with_a_write(point: Path) -> None:
    path = make(point / "capable", 0o777)
    value = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(path, "security.capability", value)
    path.write_bytes(b"written once, so that the kernel knows there is something")
    assert "security.capability" not in os.listxattr(path)
    os.setxattr(path, "security.capability", value)
    subprocess.run([sys.executable, "-c", SOMEBODY + ACTS["write"], str(path)], check=True, capture_output=True)
    assert "security.capability" not in os.listxattr(path)
