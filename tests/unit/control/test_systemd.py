from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tonfs.control.systemd import VARIABLE, notify


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_gets_one_datagram(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"@tonfs-test-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if abstract else name)
        systemd.settimeout(5.0)
        monkeypatch.setenv(VARIABLE, name)
        assert notify("READY=1", "STATUS=mounted")
        assert systemd.recv(4096) == b"READY=1\nSTATUS=mounted"


@pytest.mark.parametrize("address", ["", "relative", "/no/such/socket"])
def test_without_systemd_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, address)
    assert not notify("READY=1")
