"""What the system and SQLite refuse becomes an error of the right kind, with a sentence."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from tonfs import system
from tonfs.errors import Damaged, NoSpace, Refused, TonfsError


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.ENOSPC, NoSpace, "X cannot be made: the disk is full (/a/b)."),
        (errno.EDQUOT, NoSpace, "X cannot be made: Disk quota exceeded (/a/b)."),
        (errno.EACCES, Refused, "X cannot be made: Permission denied (/a/b)."),
        (errno.EROFS, Refused, "X cannot be made: Read-only file system (/a/b)."),
        (errno.EIO, TonfsError, "X cannot be made: Input/output error (/a/b)."),
    ],
)
def test_errors_of_the_system(number: int, kind: type[TonfsError], text: str) -> None:
    made = system.from_os(OSError(number, os.strerror(number), "/a/b"), "X cannot be made")
    assert (type(made), made.message) == (kind, text)


def test_the_place_is_said_once_and_only_when_it_is_known() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert system.from_os(full).message == "The disk is full."
    full.filename = "/a/b"
    assert system.from_os(full).message == "/a/b: the disk is full."
    assert (
        system.from_os(full, "The file /a/b cannot be made").message
        == "The file /a/b cannot be made: the disk is full."
    )


def caught(path: Path, *statements: str, read_only: bool = False) -> sqlite3.Error:
    db = sqlite3.connect(f"file:{path}?mode={'ro' if read_only else 'rwc'}", uri=True)
    try:
        for statement in statements:
            db.execute(statement)
    except sqlite3.Error as exc:
        return exc
    finally:
        db.close()
    raise AssertionError("nothing went wrong")


def test_errors_of_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some.db"
    small = ("CREATE TABLE t (x)", "PRAGMA max_page_count = 2", "INSERT INTO t VALUES (zeroblob(100000))")
    assert isinstance(system.from_sqlite(caught(path, *small), path), NoSpace)
    refused = system.from_sqlite(caught(path, "CREATE TABLE u (x)", read_only=True), path, f"The index {path}")
    assert isinstance(refused, Refused)
    assert refused.message.startswith(f"The index {path} cannot be opened: ")
    path.write_bytes(b"no database at all, but long enough to be one" * 100)
    error = caught(path, "SELECT * FROM t")
    assert isinstance(system.from_sqlite(error, path), Damaged)
    error.sqlite_errorcode = 4874  # IOERR_SHMSIZE
    assert isinstance(system.from_sqlite(error, path), Damaged)
    monkeypatch.setattr(system, "is_full", lambda directory: directory == tmp_path)
    assert isinstance(system.from_sqlite(error, path), NoSpace)
