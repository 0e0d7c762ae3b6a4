"""Both doors of one real front: the kernel's caches and the S3 door never tell different stories."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.fuse.front import Mounted, tonfs
from tests.s3.signer import Client, Response

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")


class Doors:
    def __init__(self, mount: Mounted, client: Client) -> None:
        self.mount = mount
        self.client = client

    def call(self, method: str, key: str = "", body: bytes = b"", **headers: str) -> Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.request(method, "/bkt", headers=names, body=body, key=key or None)

    def path(self, key: str) -> Path:
        return self.mount.point / "bkt" / key

    def keys(self, *query: tuple[str, str]) -> list[str]:
        return self.client.request("GET", "/bkt", [("list-type", "2"), *query]).texts("Key")


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    mount = Mounted(tmp_path_factory.mktemp("doors"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    try:
        made = tonfs("--volume", str(mount.volume), "s3", "key", "new", "--json").stdout
        key = json.loads(made)
        mount.start(f"s3=127.0.0.1:{port}")
        yield Doors(mount, Client(f"127.0.0.1:{port}", key["access_key"], key["secret_key"]))
        mount.stop()
    finally:
        mount.end()


@pytest.fixture
def doors(front: Doors) -> Iterator[Doors]:
    """An empty bucket."""
    assert front.client.request("PUT", "/bkt").status == 200
    yield front
    for root, folders, files in os.walk(front.path(""), topdown=False):
        for name in files:
            os.unlink(os.path.join(root, name))
        for name in folders:
            path = os.path.join(root, name)
            os.unlink(path) if os.path.islink(path) else os.rmdir(path)
    assert front.client.request("DELETE", "/bkt").status == 204


def md5(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def test_a_put_shows_at_once_where_the_kernel_knew_of_nothing(doors: Doors) -> None:
    path = doors.path("new/file")
    assert not path.exists()
    assert os.listdir(doors.path("")) == []
    doors.call("PUT", "new/file", b"body")
    assert path.read_bytes() == b"body"
    assert os.listdir(doors.path("")) == ["new"]


def test_a_put_over_an_open_file_is_seen_by_whoever_opens_next(doors: Doors) -> None:
    path = doors.path("f")
    path.write_bytes(b"old bytes of the mount")
    with path.open("rb") as old:
        mapped = mmap.mmap(old.fileno(), 0, prot=mmap.PROT_READ)
        assert mapped[:3] == b"old"
        doors.call("PUT", "f", b"new")
        assert path.read_bytes() == b"new"
        assert path.stat().st_size == 3
        assert old.read() == b"old bytes of the mount", "who had it open reads the version that he opened"
        mapped.close()


def test_a_delete_shows_at_once(doors: Doors) -> None:
    doors.call("PUT", "a/b/c", b"x")
    assert doors.path("a/b/c").exists()
    doors.call("DELETE", "a/b/c")
    assert not doors.path("a/b/c").exists()
    assert os.listdir(doors.path("")) == []


def test_what_the_mount_wrote_is_served_before_anybody_syncs(doors: Doors) -> None:
    with doors.path("f.txt").open("wb", buffering=0) as file:
        file.write(b"first")
        first = doors.call("GET", "f.txt")
        assert first.body == b"first"
        file.write(b" second")
        got = doors.call("GET", "f.txt", if_none_match=first.headers["etag"])
        assert (got.status, got.body) == (200, b"first second")
    assert doors.keys() == ["f.txt"]


def test_etags_of_the_mount_cannot_be_taken_for_an_md5_and_change_with_the_bytes(doors: Doors) -> None:
    path = doors.path("f")
    path.write_bytes(b"one")
    seen = {doors.call("HEAD", "f").headers["etag"]}
    for data in (b"two", b"three", b""):
        path.write_bytes(data)
        etag = doors.call("HEAD", "f").headers["etag"]
        assert etag not in seen
        assert "-" in etag.strip('"')
        seen.add(etag)
    os.truncate(path, 7)
    assert doors.call("HEAD", "f").headers["etag"] not in seen
    assert doors.call("GET", "f").body == bytes(7)


def test_a_rewrite_through_the_mount_falsifies_etag_checksum_and_not_modified(doors: Doors) -> None:
    put = doors.call("PUT", "k", b"hello", x_amz_checksum_crc32="NhCmhg==", x_amz_meta_m="1", content_type="text/x")
    with doors.path("k").open("r+b") as file:
        file.write(b"j")
    got = doors.call("GET", "k", x_amz_checksum_mode="ENABLED", if_none_match=put.headers["etag"])
    assert (got.status, got.body) == (200, b"jello")
    assert "x-amz-checksum-crc32" not in got.headers
    assert (got.headers["x-amz-meta-m"], got.headers["content-type"]) == ("1", "text/x")
    assert doors.call("PUT", "k", b"x", if_match=put.headers["etag"]).status == 412


def test_chmod_chown_utime_xattrs_and_mv_keep_what_s3_knows(doors: Doors) -> None:
    doors.call("PUT", "a", b"x", x_amz_meta_m="1", x_amz_tagging="t=u")
    path = doors.path("a")
    os.chmod(path, 0o600)
    os.chown(path, 1, 1)
    os.utime(path, (1, 2))
    os.setxattr(path, "user.note", b"y")
    os.rename(path, doors.path("b"))
    head = doors.call("HEAD", "b")
    shown = [head.headers[name] for name in ("etag", "x-amz-meta-m", "x-amz-tagging-count")]
    assert shown == [md5(b"x"), "1", "1"]
    assert doors.call("HEAD", "a").status == 404


def test_a_moved_directory_takes_its_keys_along(doors: Doors) -> None:
    for key in ("d/x", "d/y/z", "d/"):
        doors.call("PUT", key, b"" if key.endswith("/") else key.encode())
    os.rename(doors.path("d"), doors.path("e"))
    assert doors.keys() == ["e/", "e/x", "e/y/z"]
    assert doors.call("GET", "d/x").status == 404
    assert doors.call("GET", "e/y/z").body == b"d/y/z"


def test_an_object_beside_its_directory_is_out_of_sight_and_comes_back(doors: Doors) -> None:
    doors.call("PUT", "a", b"beside")
    assert doors.path("a").is_file()
    doors.call("PUT", "a/b", b"below")
    doors.call("PUT", "a/", b"inside")
    assert doors.path("a").is_dir()
    assert os.listdir(doors.path("a")) == ["b"]
    assert (doors.call("GET", "a").body, doors.call("GET", "a/").body) == (b"beside", b"inside")
    assert doors.keys() == ["a", "a/", "a/b"]
    doors.call("DELETE", "a/")
    doors.call("DELETE", "a/b")
    assert doors.path("a").read_bytes() == b"beside"


def test_uploads_in_progress_show_nowhere(doors: Doors) -> None:
    began = doors.client.request("POST", "/bkt/big", [("uploads", "")])
    upload = began.texts("UploadId")[0]
    query = [("partNumber", "1"), ("uploadId", upload)]
    etag = doors.client.request("PUT", "/bkt/big", query, body=b"part").headers["etag"]
    assert doors.keys() == []
    assert os.listdir(doors.path("")) == []
    assert [name for name in os.listdir(doors.mount.point) if not name.startswith(".")] == ["bkt"]
    body = (
        f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    )
    assert doors.client.request("POST", "/bkt/big", [("uploadId", upload)], body=body.encode()).status == 200
    assert doors.path("big").read_bytes() == b"part"


def test_links_special_files_and_odd_names(doors: Doors) -> None:
    doors.path("plain").write_bytes(b"x")
    os.symlink("/etc/hostname", doors.path("out"))
    os.symlink("..", doors.path("up"))
    os.symlink("plain", doors.path("in"))
    os.mkfifo(doors.path("fifo"))
    os.mknod(doors.path("dev"), 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.link(doors.path("plain"), doors.path("hard"))
    os.close(os.open(os.fsencode(doors.path("")) + b"/bad\xff", os.O_CREAT | os.O_WRONLY))
    os.close(os.open(os.fsencode(doors.path("")) + b"/ctl\x01\n", os.O_CREAT | os.O_WRONLY))
    assert doors.keys(("encoding-type", "url")) == [quote("ctl\x01\n"), "hard", "plain"]
    for key in ("out", "up", "in", "fifo", "dev", "up/plain"):
        assert doors.call("GET", key).status == doors.call("HEAD", key).status == 404
    assert doors.call("PUT", "plain/below", b"x").code == "ObjectParentIsFile"


def test_directories_of_the_mount_list_when_empty_and_stay(doors: Doors) -> None:
    doors.path("empty").mkdir()
    doors.path("full").mkdir()
    doors.path("full/f").write_bytes(b"x")
    assert doors.keys() == ["empty/", "full/f"]
    doors.call("DELETE", "full/f")
    assert doors.path("full").is_dir()
    assert doors.call("DELETE", "empty/").status == 204
    assert not doors.path("empty").exists()


def test_listing_order_is_that_of_whole_keys_whatever_made_them(doors: Doors) -> None:
    names = ["a", "a-b", "a.b", "a/x", "a/é", "a0", "B", "z/", "ä"]
    for number, name in enumerate(names):
        if name.endswith("/"):
            doors.path(name).mkdir()
        elif number % 2 or name == "a":
            doors.call("PUT", name, b"x")
        else:
            doors.path(name).parent.mkdir(exist_ok=True)
            doors.path(name).write_bytes(b"x")
    assert doors.keys() == sorted(names, key=str.encode)


def test_sparse_files_come_whole(doors: Doors) -> None:
    with doors.path("sparse").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
    got = doors.call("GET", "sparse")
    assert got.body == bytes(3 << 20) + b"end"
    assert doors.call("GET", "sparse", range="bytes=-4").body == b"\0end"


def test_a_file_that_is_removed_is_sent_to_its_end_to_whoever_began(doors: Doors) -> None:
    doors.call("PUT", "k", b"x" * (4 << 20))
    signed = doors.client.signed("GET", "/bkt/k")
    with socket.create_connection(doors.client.host.split(":"), timeout=30) as wire:
        lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
        wire.sendall(f"GET /bkt/k HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode())
        begin = wire.recv(1000)
        os.unlink(doors.path("k"))
        doors.call("PUT", "k", b"other")
        rest = b"".join(iter(lambda: wire.recv(1 << 20), b""))
    assert (begin + rest).partition(b"\r\n\r\n")[2] == b"x" * (4 << 20)
    assert doors.path("k").read_bytes() == b"other"
