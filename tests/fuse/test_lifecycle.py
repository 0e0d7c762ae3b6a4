"""Starting, stopping, options, evictions and a full disk, with real fronts."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.fuse.front import TONFS, Mounted, run, tonfs
from tests.unit.front.fake_agent import FakeAgent
from tonfs.control import serve
from tonfs.control.pidfile import up_file
from tonfs.errors import Busy
from tonfs.front.turn import is_held, wait_for_turn
from tonfs.fuse import find_mount
from tonfs.ids import BagId

pytestmark = pytest.mark.root


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def refused(number: int, action: Callable[[], object]) -> None:
    got: int | None = None
    try:
        action()
    except OSError as exc:
        got = exc.errno
    assert got == number


# Starting and stopping --------------------------------------------------------------------------------------------


def test_a_dead_mount_point_is_cleaned_up_by_mount_and_by_umount(stage: Mounted) -> None:
    stage.start()
    with (stage.point / "f").open("w") as stream:
        stream.write("x")
        stream.flush()
        os.fsync(stream.fileno())
    stage.kill()
    stage.start()
    assert (stage.point / "f").read_text() == "x"
    stage.kill()
    assert "cleaned up" in tonfs("umount", str(stage.point)).stderr
    assert find_mount(str(stage.point)) is None
    done = tonfs("umount", str(stage.point), check=False)
    assert done.returncode == 3
    assert "No tonfs volume is mounted" in done.stderr


def test_what_mounts_it_again_after_umount_is_said(stage: Mounted) -> None:
    stage.start()
    with up_file(stage.volume).lock("Runs", "Stop it."):
        assert "'tonfs down' stops all of it" in tonfs("umount", str(stage.point)).stderr
    stage.start()
    assert tonfs("umount", str(stage.point)).stderr == ""


def test_a_mount_point_that_is_taken_names_the_volume(stage: Mounted, tmp_path: Path) -> None:
    stage.start()
    tonfs("--volume", str(tmp_path / "other"), "init", "--network", "none")
    done = tonfs("--volume", str(tmp_path / "other"), "mount", str(stage.point), check=False)
    assert done.returncode == 1
    assert f"The volume {stage.volume} is mounted at {stage.point}." in done.stderr


def test_a_busy_mount_is_not_unmounted_and_then_it_is(stage: Mounted) -> None:
    stage.start()
    with (stage.point / "f").open("w") as stream:
        stream.write("x")
        done = tonfs("umount", str(stage.point), check=False)
        assert done.returncode == 1
        assert "in use" in done.stderr
        stream.write("y")
    stage.stop()
    stage.start()
    assert (stage.point / "f").read_text() == "xy"


@pytest.mark.parametrize("how", ["SIGINT", "shutdown", "umount"])
def test_every_orderly_end_keeps_what_was_written(stage: Mounted, how: str) -> None:
    stage.start()
    pid = stage.pid
    (stage.point / "f").write_bytes(b"x" * 3_000_000)
    if how == "shutdown":
        stage.call("shutdown")
    elif how == "umount":
        run("umount", str(stage.point))
    else:
        os.kill(pid, getattr(signal, how))
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert find_mount(str(stage.point)) is None
    assert not (stage.volume / "run" / "front.sock").exists()
    stage.start()
    assert (stage.point / "f").read_bytes() == b"x" * 3_000_000


def test_a_mount_right_after_umount_waits_for_the_front_and_says_so(stage: Mounted) -> None:
    """umount(8) does not wait for the front, which may have much to write. Here it is stopped."""
    stage.start()
    (stage.point / "f").write_bytes(b"x" * 100_000)
    run("sync", "-f", str(stage.point))  # or umount would have something to ask the front
    pid = stage.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        run("umount", "-il", str(stage.point))
        words = [*TONFS, "--volume", str(stage.volume), "mount", str(stage.point)]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as mounting:
            assert mounting.stderr is not None
            assert "is still writing it to the disk; waiting" in mounting.stderr.readline()
            assert mounting.poll() is None
            os.kill(pid, signal.SIGCONT)
            assert mounting.wait(60) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    assert stage.pid != pid
    assert (stage.point / "f").read_bytes() == b"x" * 100_000
    stage.stop()


def test_the_wait_for_a_front_that_never_ends_has_an_end(stage: Mounted) -> None:
    stage.start()
    pid = stage.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        run("umount", "-il", str(stage.point))
        with pytest.raises(Busy, match="still writing"):
            wait_for_turn(stage.volume, patience=0.0)
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: not is_held(stage.volume))


def test_sigterm_with_files_open_writes_them_and_ends(stage: Mounted) -> None:
    stage.start()
    pid = stage.pid
    fd = os.open(stage.point / "f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"held open")
    os.kill(pid, signal.SIGTERM)
    until(lambda: not Path(f"/proc/{pid}").exists())
    refused(errno.ENOTCONN, lambda: os.fsync(fd))
    with contextlib.suppress(OSError):
        os.close(fd)
    stage.start()
    assert (stage.point / "f").read_bytes() == b"held open"


def test_the_command_tells_the_real_reason(stage: Mounted, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = tonfs("--volume", str(stage.volume), "mount", str(tmp_path / "file"), check=False)
    assert done.returncode == 2
    assert "is not a directory" in done.stderr
    done = tonfs("--volume", str(tmp_path / "none"), "mount", str(stage.point), check=False)
    assert done.returncode == 3
    assert "There is no volume" in done.stderr
    stage.start()
    other = Mounted(tmp_path / "other")
    done = tonfs("--volume", str(other.volume), "mount", str(stage.point), check=False)
    assert done.returncode == 1
    assert "mounted at" in done.stderr


def test_a_mount_that_does_not_answer_is_no_mount(stage: Mounted) -> None:
    """libfuse and the kernel do not come to terms: nobody is told that the mount is there."""
    code = """if True:
        import sys
        from pathlib import Path
        from tonfs.config import load
        from tonfs.errors import Refused
        from tonfs.front import FrontConfig, run_front
        from tonfs.fuse import MountOptions
        volume, point = map(Path, sys.argv[1:])
        options = MountOptions(kernel=("max_read=100",))
        config = FrontConfig(volume=volume, settings=load(volume)[0], mount=point, options=options, s3_listen="")
        try:
            run_front(config, lambda: print("ready"))
        except Refused as exc:
            print(exc.message)
    """
    words = [sys.executable, "-c", code, str(stage.volume), str(stage.point)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith(f"{stage.point} was mounted and does not answer"), done
    assert find_mount(str(stage.point)) is None
    (stage.volume / "log" / "front.log").unlink(missing_ok=True)


def test_the_mount_table_shows_volume_and_type(stage: Mounted) -> None:
    stage.start("noatime,x-systemd.automount,_netdev")
    there = find_mount(str(stage.point))
    assert there is not None
    assert there.type == "fuse.tonfs"
    assert there.source == f"ton://{stage.volume}"


# Options ----------------------------------------------------------------------------------------------------------


def test_a_read_only_mount_takes_nothing(stage: Mounted) -> None:
    stage.start()
    (stage.point / "f").write_text("x")
    stage.stop()
    stage.start("ro")
    assert (stage.point / "f").read_text() == "x"
    refused(errno.EROFS, lambda: (stage.point / "g").touch())
    refused(errno.EROFS, lambda: os.unlink(stage.point / "f"))


def test_owner_and_mode_may_be_overridden(stage: Mounted) -> None:
    stage.start("uid=12,gid=34,umask=077")
    (stage.point / "f").write_text("x")
    info = (stage.point / "f").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (12, 34, 0o600)


# Evicted files ----------------------------------------------------------------------------------------------------


@contextmanager
def serving(agent: FakeAgent) -> Iterator[None]:
    """agent.sock, served by a thread of this process."""
    started, stop = threading.Event(), trio.Event()
    token: list[trio.lowlevel.TrioToken] = []

    async def main() -> None:
        token.append(trio.lowlevel.current_trio_token())
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, agent.volume / "run" / "agent.sock", agent.handlers())
            started.set()
            await stop.wait()
            nursery.cancel_scope.cancel()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    started.wait()
    try:
        yield
    finally:
        token[0].run_sync_soon(stop.set)
        thread.join()


def pack_and_evict(stage: Mounted) -> dict[BagId, bytes]:
    """What the agent does, by the front's socket; the packs' bytes."""
    work = stage.call("dirty", settle=0, limit_bytes=1 << 30, force=True)
    data, extents = b"", []
    for item in work["files"]:
        ranges = []
        for (offset, length), (path, place) in zip(item["ranges"], item["sources"], strict=True):
            ranges.append([offset, length, len(data)])
            data += Path(path).read_bytes()[place : place + length]
        extents.append({"inode": item["inode"], "version": item["version"], "ranges": ranges})
    bag = os.urandom(32).hex()
    assert stage.call("commit_pack", bag_id=bag, size=len(data), extents=extents)["stale"] == []
    stage.call("pack_states", packs=[{"bag_id": bag, "proven": 5, "wanted": 5}])
    assert stage.call("evict", paths=[])["kept"] == []
    stage.drop_caches()  # the kernel is told to forget evicted bytes, too, but a moment later
    return {BagId(bytes.fromhex(bag)): data}


@pytest.fixture
def networked(root_and_fuse: None, tmp_path: Path) -> Iterator[Mounted]:
    """A mounted volume whose agent is for the test to play."""
    stage = Mounted(tmp_path, network="devnet")
    yield stage
    stage._calm()
    if find_mount(str(stage.point)) is not None:
        subprocess.run(["umount", "-l", str(stage.point)], check=False)


def test_evicted_files_are_read_back_through_the_agent(networked: Mounted) -> None:
    stage = networked.start("deadline=10s")
    contents = {f"f{n}": os.urandom(n * 50_000 + 1) for n in range(8)}
    for name, data in contents.items():
        (stage.point / name).write_bytes(data)
    (stage.point / "holes").write_bytes(b"start")
    os.truncate(stage.point / "holes", 5 << 20)
    agent = FakeAgent(stage.volume, pack_and_evict(stage))
    assert stage.call("status")["bytes"]["local"] < 6 << 20
    assert os.getxattr(stage.point / "f1", "user.tonfs.state") == b"proven"
    with serving(agent):
        for name, data in contents.items():
            info = (stage.point / name).stat()
            assert info.st_blocks * 512 >= info.st_size, "evicted bytes are no holes"
            assert (stage.point / name).read_bytes() == data
        assert (stage.point / "holes").read_bytes() == b"start" + bytes((5 << 20) - 5)
        asked = len(agent.asked)
        stage.drop_caches()
        assert (stage.point / "f7").read_bytes() == contents["f7"]
        assert len(agent.asked) == asked, "what was fetched is local"
    with (stage.point / "f5").open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"changed")
    stage.drop_caches()
    assert (stage.point / "f5").read_bytes() == contents["f5"][:1000] + b"changed" + contents["f5"][1007:]
    stage.stop()
    lines = [line for line in stage.log().splitlines() if " error " in line or " warning " in line]
    assert lines == []


def test_without_an_agent_reads_fail_in_time_and_the_mount_goes_on(networked: Mounted) -> None:
    stage = networked.start("deadline=1s")
    (stage.point / "f").write_bytes(os.urandom(10_000))
    packs = pack_and_evict(stage)
    begun = time.monotonic()
    refused(errno.EIO, lambda: (stage.point / "f").read_bytes())
    assert time.monotonic() - begun < 15
    (stage.point / "g").write_text("the mount works")
    assert (stage.point / "g").read_text() == "the mount works"
    agent = FakeAgent(stage.volume, packs)
    with serving(agent):
        agent.delay = 60
        thread = threading.Thread(target=lambda: refused(errno.EIO, lambda: (stage.point / "f").read_bytes()))
        thread.start()
        for _ in range(20):
            (stage.point / "g").stat()
            os.listdir(stage.point)
        thread.join()
        agent.delay = 0
        assert len((stage.point / "f").read_bytes()) == 10_000


def test_an_offline_mount_asks_nobody(networked: Mounted) -> None:
    stage = networked.start()
    (stage.point / "f").write_bytes(b"x" * 100)
    agent = FakeAgent(stage.volume, pack_and_evict(stage))
    stage.stop()
    stage.start("offline")
    with serving(agent):
        refused(errno.EIO, lambda: (stage.point / "f").read_bytes())
    assert agent.asked == []


# A full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(root_and_fuse: None, tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk))
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_full_disk_is_an_error_and_the_volume_stays_whole(small_disk: Path) -> None:
    stage = Mounted(small_disk)
    stage.start()
    try:
        (stage.point / "kept").write_bytes(b"k" * 1_000_000)
        fd = os.open(stage.point / "kept", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

        def fill() -> None:
            fd = os.open(stage.point / "big", os.O_CREAT | os.O_WRONLY)
            try:
                for _ in range(40):
                    os.write(fd, os.urandom(1 << 20))
                os.fsync(fd)
            finally:
                os.close(fd)

        refused(errno.ENOSPC, fill)
        refused(errno.ENOSPC, lambda: [(stage.point / f"x{n}").mkdir() for n in range(10)])
        assert (stage.point / "kept").read_bytes() == b"k" * 1_000_000
        os.unlink(stage.point / "big")
        until(lambda: stage.call("commit") == {} and os.statvfs(small_disk).f_bavail * 4096 > 10 << 20)
        time.sleep(0.5)
        (stage.point / "after").write_bytes(b"a" * 1_000_000)
        stage.stop()
        stage.start()
        assert sorted(os.listdir(stage.point)) == ["after", "kept"]
        assert (stage.point / "after").read_bytes() == b"a" * 1_000_000
    finally:
        stage.end()


@pytest.fixture
def limited_disk(root_and_fuse: None, tmp_path: Path) -> Iterator[Path]:
    """A subvolume of btrfs with a quota, which holds for root as well."""
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("needs btrfs-progs")
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as stream:
        stream.truncate(256 << 20)
    run("mkfs.btrfs", "-q", str(image))
    mounted = subprocess.run(
        ["mount", "-o", "loop", str(image), str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"btrfs cannot be mounted here: {mounted.stderr}")
    try:
        run("btrfs", "subvolume", "create", str(disk / "limited"))
        run("btrfs", "quota", "enable", str(disk))
        run("btrfs", "qgroup", "limit", "32M", str(disk / "limited"))
        yield disk / "limited"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_quota_of_the_disk_below_is_told_as_such_and_the_volume_stays_whole(limited_disk: Path) -> None:
    stage = Mounted(limited_disk)
    stage.start()
    try:
        (stage.point / "kept").write_bytes(b"k" * 1_000_000)

        def fill() -> None:
            fd = os.open(stage.point / "big", os.O_CREAT | os.O_WRONLY)
            try:
                for _ in range(60):
                    os.write(fd, os.urandom(1 << 20))
                os.fsync(fd)
            finally:
                with contextlib.suppress(OSError):  # says it again
                    os.close(fd)

        refused(errno.EDQUOT, fill)
        refused(errno.EDQUOT, lambda: [(stage.point / f"x{n}").mkdir() for n in range(10)])
        assert (stage.point / "kept").read_bytes() == b"k" * 1_000_000
        os.unlink(stage.point / "big")

        def has_room() -> bool:
            stage.call("commit")
            run("sync", "-f", str(limited_disk))  # btrfs counts what is free when it writes
            try:
                (stage.point / "after").write_bytes(b"a" * 1_000_000)
            except OSError:
                return False
            return True

        until(has_room)
        stage.stop()
        stage.start()
        assert (stage.point / "after").read_bytes() == b"a" * 1_000_000
        assert (stage.point / "kept").read_bytes() == b"k" * 1_000_000
    finally:
        stage.end()


# Two doors --------------------------------------------------------------------------------------------------------

DOORS = """
import sys, trio
from pathlib import Path
from tonfs.fuse import Mount, MountOptions
from tonfs.volume import ROOT, S3Record, Volume

async def main():
    volume = Volume(Path(sys.argv[1]))
    async def fetch(ranges): raise AssertionError
    mount = Mount(volume, fetch, MountOptions(), sys.argv[2], Path(sys.argv[1]))
    mount.start()
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.serve)
        bucket = volume.create_bucket(b'bucket', 0, 0).inode
        print('ready', flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            verb, key, data = line.rstrip('\\n').split(' ')
            parts = [p.encode() for p in key.split('/')]
            if verb == 'put':
                staged = volume.stage(0, 0)
                volume.write(staged, 0, data.encode())
                volume.publish(staged, bucket, parts, S3Record(etag='e'))
            else:
                assert volume.remove_object(bucket, parts)
            print('done', flush=True)
        await mount.stop()
    mount.finish()
    volume.close()

trio.run(main)
"""


def test_what_the_other_door_changes_is_seen_at_once(root_and_fuse: None, tmp_path: Path) -> None:
    import sys

    volume, point = tmp_path / "volume", tmp_path / "mnt"
    volume.mkdir()
    point.mkdir()
    argv = [sys.executable, "-c", DOORS, str(volume), str(point)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def door(line: str) -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"

        def sees(content: str | None) -> bool:
            path = point / "bucket" / "d" / "k"
            return (path.read_text() if path.exists() else None) == content

        try:
            assert process.stdout.readline() == "ready\n"
            assert sees(None)
            for content in ("one", "longer", "3"):
                door(f"put d/k {content}")
                until(lambda content=content: sees(content), 5.0)  # type: ignore[misc]
            assert os.listdir(point / "bucket" / "d") == ["k"]
            (point / "bucket" / "d" / "k").write_text("by the mount")
            door("put d/k again")
            until(lambda: sees("again"), 5.0)
            door("delete d/k -")
            until(lambda: os.listdir(point / "bucket") == [], 5.0)
            until(lambda: sees(None), 5.0)
            process.stdin.close()
            assert process.wait(20) == 0
        finally:
            subprocess.run(["umount", "-l", str(point)], check=False, capture_output=True)
            process.kill()


def test_json_of_the_socket_is_what_the_agreement_says(stage: Mounted) -> None:
    stage.start()
    answer: dict[str, Any] = stage.call("ping")
    assert answer["mount"] == {"path": str(stage.point), "alive": True}
    assert answer["pid"] == stage.pid
