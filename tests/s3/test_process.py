"""`tonfs s3 serve` and `tonfs s3 key` as a user runs them: processes, signals, kill -9."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.s3.signer import Client


def tonfs(volume: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tonfs", "--volume", str(volume), *words], capture_output=True, text=True, timeout=60
    )


def made(volume: Path, *words: str) -> Any:
    done = tonfs(volume, *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "volume"
    assert tonfs(path, "init", "--network", "none").returncode == 0
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def serving(volume: Path, port: int, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """The door, answering."""
    listen = ["--listen", f"127.0.0.1:{port}"]
    command = [sys.executable, "-m", "tonfs", "--volume", str(volume), "s3", "serve", *listen, *words]
    with (volume / "log" / "test.log").open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        for _ in range(600):
            assert process.poll() is None, (volume / "log" / "test.log").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait(30)


def test_serve_survives_a_kill_and_ends_in_order(volume: Path) -> None:
    port = free_port()
    key = made(volume, "s3", "key", "new", "--json")
    client = Client(f"127.0.0.1:{port}", key["access_key"], key["secret_key"])
    body = os.urandom(1_000_000)
    with serving(volume, port) as process:
        assert client.request("PUT", "/bkt").status == 200
        assert client.request("PUT", "/bkt/a/b", body=body, headers={"x-amz-meta-m": "1"}).status == 200
        etag = client.request("HEAD", "/bkt/a/b").headers["etag"]
        process.kill()
    with serving(volume, port) as process:
        got = client.request("GET", "/bkt/a/b")
        assert (got.status, got.body) == (200, body)
        assert (got.headers["etag"], got.headers["x-amz-meta-m"]) == (etag, "1")
        reader = made(volume, "s3", "key", "new", "--bucket", "bkt", "--rights", "read", "--json")
        other = Client(f"127.0.0.1:{port}", reader["access_key"], reader["secret_key"])
        assert other.request("GET", "/bkt/a/b").status == 200, "a new key works in a door that runs"
        assert other.request("PUT", "/bkt/x", body=b"x").status == 403
        assert tonfs(volume, "s3", "key", "revoke", reader["access_key"]).returncode == 0
        assert other.request("GET", "/bkt/a/b").code == "InvalidAccessKeyId"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    log = (volume / "log" / "test.log").read_text()
    assert key["secret_key"] not in log
    assert "Traceback" not in log


def test_two_doors_on_one_volume_are_refused(volume: Path) -> None:
    with serving(volume, free_port()):
        second = tonfs(volume, "s3", "serve", "--listen", f"127.0.0.1:{free_port()}")
        assert second.returncode == 1
        assert "TF0008" in second.stderr


def test_addresses_and_keys_that_are_wrong_say_so(volume: Path) -> None:
    beyond = tonfs(volume, "s3", "serve", "--listen", "0.0.0.0:8080")
    assert beyond.returncode == 2
    assert "TLS" in beyond.stderr
    assert tonfs(volume, "s3", "key", "revoke", "TFNOBODY").returncode == 3
    assert tonfs(volume / "absent", "s3", "key", "new").returncode == 3
    assert not (volume / "absent").exists()
    first, second = made(volume, "s3", "key", "new", "--json"), made(volume, "s3", "key", "new", "--json")
    listed = made(volume, "s3", "key", "list", "--json")
    assert [row["access_key"] for row in listed["keys"]] == [first["access_key"], second["access_key"]]
    assert first["secret_key"] not in json.dumps(listed)
    assert first["schema"] == "tonfs.s3.key.new/1"
    shown = tonfs(volume, "s3", "key", "list").stdout
    assert first["access_key"] in shown


def test_policies_of_a_bucket(volume: Path) -> None:
    port = free_port()
    key = made(volume, "s3", "key", "new", "--json")
    client = Client(f"127.0.0.1:{port}", key["access_key"], key["secret_key"])
    assert tonfs(volume, "s3", "policy", "show", "bkt").returncode == 4, "a door must run"
    with serving(volume, port):
        assert client.request("PUT", "/bkt").status == 200
        assert tonfs(volume, "s3", "policy", "set", "bkt", "replicas=3", "pin=yes").returncode == 0
        shown = made(volume, "s3", "policy", "show", "bkt", "--json")
        assert shown["policies"] == {"pin": "true", "replicas": "3"}
        assert tonfs(volume, "s3", "policy", "set", "bkt", "pin=no", "replicas=0").returncode == 2
        assert made(volume, "s3", "policy", "show", "bkt", "--json") == shown, "all or nothing"
        assert tonfs(volume, "s3", "policy", "unset", "bkt", "pin", "pin").returncode == 0
        assert tonfs(volume, "s3", "policy", "show", "bkt").stdout == "replicas = 3\n"
        assert tonfs(volume, "s3", "policy", "set", "nobucket", "replicas=3").returncode == 3
