"""The directory `.tonfs` through the kernel."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .front import Mounted

pytestmark = pytest.mark.root


def refused(call: Callable[..., Any], *args: Any) -> int:
    try:
        call(*args)
    except OSError as exc:
        return exc.errno or 0
    return 0


def as_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="ascii"))
    return value


def test_reports_are_read_like_files_below_proc(mnt: Path) -> None:
    (mnt / "dir").mkdir()
    (mnt / "dir" / "file").write_bytes(b"hello")
    os.sync()
    control = mnt / ".tonfs"
    assert sorted(os.listdir(control)) == ["providers", "queue", "status", "why"]
    assert as_json(control / "status")["mount"] == {"path": str(mnt), "alive": True}
    assert as_json(control / "queue")["dirty"] == {"files": 1, "bytes": 5}
    assert as_json(control / "providers")["providers"] == []
    assert os.listdir(control / "why" / "dir") == ["file"]
    why = as_json(control / "why" / "dir" / "file")
    assert (why["path"], why["state"], why["inode"]) == ("dir/file", "dirty", (mnt / "dir" / "file").stat().st_ino)
    (mnt / "dir" / "file").write_bytes(b"longer than before")
    os.sync()
    assert as_json(control / "why" / "dir" / "file")["size"] == 18


def test_nothing_in_it_can_be_changed(mnt: Path) -> None:
    (mnt / "dir").mkdir()
    control = mnt / ".tonfs"
    assert refused(os.mkdir, control) == errno.EEXIST
    assert {
        refused(os.mkdir, control / "new"),
        refused(os.rmdir, control),
        refused(os.unlink, control / "status"),
        refused(os.rename, mnt / "dir", control),
        refused(os.rename, control, mnt / "other"),
        refused(os.link, control / "status", mnt / "status"),
        refused(os.symlink, "x", control / "why" / "dir" / "link"),
        refused(os.mkfifo, control / "why" / "fifo"),
        refused(os.chmod, control / "why" / "dir", 0o777),
        refused(os.truncate, control / "status", 0),
        refused(open, control / "new", "w"),
    } == {errno.EROFS}
    assert os.listdir(mnt) == ["dir"]


def test_it_is_hidden_unless_asked_for(stage: Mounted) -> None:
    mnt = stage.start().point
    (mnt / "file").touch()
    assert os.listdir(mnt) == ["file"]
    stage.stop()
    stage.start("show_control")
    assert sorted(os.listdir(mnt)) == [".tonfs", "file"]
    found = subprocess.run(["find", mnt, "-type", "f"], capture_output=True, text=True, check=True).stdout
    assert len(found.splitlines()) == 5


def test_who_may_not_read_a_file_may_not_ask_why(mnt: Path) -> None:
    (mnt / "secret").mkdir(mode=0o700)
    (mnt / "secret" / "file").touch()
    (mnt / "open").touch()

    def nobody(path: str) -> bool:
        words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", path]
        return subprocess.run(words, capture_output=True, check=False, cwd=mnt).returncode == 0

    assert nobody(".tonfs/why/open")
    assert not nobody(".tonfs/why/secret/file")
    assert not nobody(".tonfs/status")


def test_extended_attributes_are_its_commands(mnt: Path) -> None:
    (mnt / "file").write_bytes(b"only here")
    why = mnt / ".tonfs" / "why" / "file"
    os.setxattr(why, "user.tonfs.fetch", b"")
    assert as_json(why)["state"] == "dirty", "it can still be read after a command"
    assert refused(os.setxattr, why, "user.tonfs.evict", b"") == errno.EBUSY
    assert refused(os.setxattr, why, "user.tonfs.format", b"") == errno.EOPNOTSUPP
    assert refused(os.setxattr, mnt / ".tonfs", "user.tonfs.flush", b"") == errno.EOPNOTSUPP
    assert refused(os.setxattr, why, "user.colour", b"red") == errno.EOPNOTSUPP
    assert os.listxattr(why) == []
    assert refused(os.getxattr, why, "user.tonfs.fetch") == errno.ENODATA
