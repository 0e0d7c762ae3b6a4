"""What programs do on a mount, seen through the kernel."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import sqlite3
import stat
import subprocess
import sysconfig
from pathlib import Path

import pytest

from .conftest import MountedVolume

pytestmark = pytest.mark.root


def test_a_tree_copied_with_cp_keeps_bytes_modes_times_and_links(mounted: MountedVolume, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(Path(sysconfig.get_path("stdlib")) / "json", source, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "soft").symlink_to("decoder.py")
    (source / "tool.py").chmod(0o750)
    os.utime(source / "tool.py", ns=(1_600_000_000_123_456_789, 1_600_000_001_987_654_321))
    subprocess.run(["cp", "-a", str(source), str(mounted.point / "copy")], check=True)
    subprocess.run(["diff", "-r", "--no-dereference", str(source), str(mounted.point / "copy")], check=True)
    ours, theirs = (mounted.point / "copy" / "tool.py").stat(), (source / "tool.py").stat()
    assert (ours.st_mode, ours.st_mtime_ns, ours.st_size) == (theirs.st_mode, theirs.st_mtime_ns, theirs.st_size)
    assert os.readlink(mounted.point / "copy" / "soft") == "decoder.py"


def test_everything_is_there_after_a_remount_with_the_same_inode_numbers(mounted: MountedVolume) -> None:
    file = mounted.point / "dir" / "file"
    file.parent.mkdir()
    file.write_bytes(b"x" * 100_000)
    os.setxattr(file, "user.colour", b"blue")
    os.link(file, mounted.point / "second")
    before = file.stat()
    mounted.umount()
    mounted.mount()
    after = file.stat()
    assert (before.st_ino, before.st_mtime_ns, after.st_nlink) == (after.st_ino, after.st_mtime_ns, 2)
    assert file.read_bytes() == b"x" * 100_000
    assert os.getxattr(file, "user.colour") == b"blue"
    assert (mounted.point / "second").stat().st_ino == before.st_ino


def test_an_unlinked_open_file_lives_until_it_is_closed(mounted: MountedVolume) -> None:
    with (mounted.point / "f").open("w+b", buffering=0) as stream:
        stream.write(b"still here")
        (mounted.point / "f").unlink()
        assert os.fstat(stream.fileno()).st_nlink == 0
        stream.seek(0)
        assert stream.read() == b"still here"
    assert not (mounted.point / "f").exists()


def test_truncated_and_extended_files_read_zeros_where_nothing_was_written(mounted: MountedVolume) -> None:
    file = mounted.point / "f"
    file.write_bytes(b"a" * 5000)
    os.truncate(file, 100)
    os.truncate(file, 5000)
    assert file.read_bytes() == b"a" * 100 + bytes(4900)
    with file.open("r+b") as stream:
        stream.seek((1 << 40) + 1)
        stream.write(b"far")
    assert file.stat().st_size == (1 << 40) + 4
    assert file.stat().st_blocks < 1000


def test_rename_replaces_exchanges_and_refuses_as_asked(mounted: MountedVolume) -> None:
    one, two = mounted.point / "one", mounted.point / "two"
    one.write_text("1")
    two.write_text("2")
    os.replace(one, two)
    assert two.read_text() == "1"
    assert not one.exists()
    (mounted.point / "full").mkdir()
    (mounted.point / "full" / "x").touch()
    (mounted.point / "empty").mkdir()
    with pytest.raises(OSError, match="not empty") as caught:
        os.rename(mounted.point / "empty", mounted.point / "full")
    assert caught.value.errno == errno.ENOTEMPTY


def test_special_files_and_permission_bits_are_kept(mounted: MountedVolume) -> None:
    os.mkfifo(mounted.point / "pipe", 0o640)
    assert stat.S_ISFIFO((mounted.point / "pipe").stat().st_mode)
    (mounted.point / "dir").mkdir()
    os.chmod(mounted.point / "dir", 0o3775)
    os.chown(mounted.point / "dir", 1, 7)
    (mounted.point / "dir" / "inner").mkdir()
    inner = (mounted.point / "dir" / "inner").stat()
    assert inner.st_gid == 7
    assert inner.st_mode & stat.S_ISGID


def test_names_are_bytes_up_to_255(mounted: MountedVolume) -> None:
    root = os.fsencode(mounted.point)
    name = b"\xff\xfe" + b"n" * 253
    with open(root + b"/" + name, "wb") as stream:
        stream.write(b"x")
    assert os.listdir(root) == [name]
    with pytest.raises(OSError, match="too long") as caught:
        open(root + b"/" + b"n" * 256, "wb").close()
    assert caught.value.errno == errno.ENAMETOOLONG


def test_a_large_directory_lists_every_name_once_while_it_shrinks(mounted: MountedVolume) -> None:
    folder = mounted.point / "many"
    folder.mkdir()
    for n in range(1000):
        (folder / f"f{n:04}").touch()
    assert sorted(os.listdir(folder)) == [f"f{n:04}" for n in range(1000)]
    shutil.rmtree(folder)
    assert not folder.exists()


def test_shared_memory_maps_reach_the_file(mounted: MountedVolume) -> None:
    file = mounted.point / "map"
    file.write_bytes(bytes(8192))
    with file.open("r+b") as stream, mmap.mmap(stream.fileno(), 8192) as memory:
        memory[4096:4101] = b"hello"
        memory.flush()
    assert file.read_bytes()[4096:4101] == b"hello"


def test_sqlite_and_git_work_on_it(mounted: MountedVolume) -> None:
    database = sqlite3.connect(mounted.point / "x.db")
    database.execute("PRAGMA journal_mode=wal")
    database.execute("CREATE TABLE t (n)")
    database.executemany("INSERT INTO t VALUES (?)", ((n,) for n in range(100)))
    database.commit()
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    repo = mounted.point / "repo"
    (repo).mkdir()
    (repo / "a").write_text("text")
    for words in (["init", "-q"], ["add", "a"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=repo, check=True, capture_output=True)
    subprocess.run(["git", "fsck", "--strict"], cwd=repo, check=True, capture_output=True)


def test_statfs_tells_programs_what_they_need(mounted: MountedVolume) -> None:
    told = os.statvfs(mounted.point)
    assert told.f_namemax == 255
    assert told.f_blocks >= told.f_bfree >= told.f_bavail > 0
    assert told.f_files > 0


def test_wrong_options_are_refused_with_the_nearest_match(mounted: MountedVolume, tmp_path: Path) -> None:
    done = mounted.tonfs("mount", str(tmp_path / "other"), "-o", "cache_sise=5", ok=False)
    assert done.returncode != 0
    assert "cache_size" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_volume_is_mounted_once(mounted: MountedVolume, tmp_path: Path) -> None:
    done = mounted.tonfs("mount", str(tmp_path / "again"), ok=False)
    assert done.returncode != 0
    assert "TF0008" in done.stderr
    assert mounted.point.is_mount()


def test_a_volume_without_network_works_without_an_agent(mounted: MountedVolume) -> None:
    (mounted.point / "f").write_bytes(b"data")
    status = mounted.status()
    assert status["network"] == "none"
    assert status["mount"] == {"path": str(mounted.point), "alive": True}
    assert mounted.tonfs("wait", ok=False).returncode == 2


def test_every_option_of_mount8_that_we_accept_can_be_mounted_with(mounted: MountedVolume) -> None:
    from tonfs.fuse.options import IGNORED, KERNEL_FLAGS

    mounted.umount()
    mounted.mount("-o", ",".join(sorted((KERNEL_FLAGS | IGNORED) - {"ro"})))
    (mounted.point / "file").touch()
