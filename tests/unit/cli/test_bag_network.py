"""`tonfs bag seed|get|list|remove` in real processes on loopback: one DHT node, a seeder's store, a reader's store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tonfs.cli.main import run
from tonfs.clock import SystemClock
from tonfs.network.dht_server import DhtServer
from tonfs.network.global_config import emit_dht
from tonfs.network.keys import KeyPair
from tonfs.network.node import AdnlNode


@pytest.fixture
def global_config(tmp_path: Path) -> Iterator[Path]:
    """A network that is only a DHT node."""
    path = tmp_path / "global.config.json"
    ready = threading.Event()
    token: list[trio.lowlevel.TrioToken] = []
    scope = trio.CancelScope()

    async def serve() -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                node = AdnlNode(("127.0.0.1", 0), clock=SystemClock())
                await nursery.start(node.run)
                server = DhtServer(node.add_identity(KeyPair.generate()), SystemClock())
                await nursery.start(server.run)
                path.write_text(json.dumps({"dht": emit_dht([server.node_entry()])}), encoding="ascii")
                token.append(trio.lowlevel.current_trio_token())
                ready.set()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert ready.wait(30)
    yield path
    token[0].run_sync_soon(scope.cancel)
    thread.join(30)


class Tool:
    def __init__(self, tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = tmp_path
        self.config = str(config)
        self.capsys = capsys

    def json(self, *words: str, store: str) -> dict[str, Any]:
        self.capsys.readouterr()
        assert run(["bag", *words, "--store", str(self.folder / store), "--json"]) == 0, self.capsys.readouterr().err
        value: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        assert value["schema"] == f"tonfs.bag-{words[0]}/1"
        return value

    def code(self, *words: str, store: str) -> int:
        return run(["bag", *words, "--store", str(self.folder / store)])

    def seeder(self, store: str) -> subprocess.Popen[str]:
        words = ["bag", "seed", "--store", str(self.folder / store), "--global-config", self.config, "--json"]
        words += ["--upload-limit", "32M", "--upload-limit-per-peer", "16M"]
        return subprocess.Popen([sys.executable, "-m", "tonfs", *words], stdout=subprocess.PIPE, text=True)


@pytest.fixture
def tool(tmp_path: Path, global_config: Path, capsys: pytest.CaptureFixture[str]) -> Tool:
    return Tool(tmp_path, global_config, capsys)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_bytes(os.urandom(400_000))
    (folder / "sub" / "b").write_bytes(os.urandom(300_000))
    (folder / "empty").touch()
    return folder


def test_a_bag_goes_from_one_store_to_another_whole_and_in_part(tool: Tool, photos: Path, tmp_path: Path) -> None:
    bag = tool.json("create", str(photos), store="one")["bag_id"]
    with tool.seeder("one") as seeder:
        try:
            assert seeder.stdout is not None
            head = json.loads("".join(seeder.stdout.readline() for _ in range(11)))  # once it serves
            assert head["schema"] == "tonfs.bag-seed/1"
            assert (head["upload_limit"], head["upload_limit_per_peer"]) == (32 << 20, 16 << 20)
            (mine,) = tool.json("list", store="one")["bags"]
            assert (mine["seeding"], mine["complete"], mine["own_files"]) == (True, True, True)

            net = ("--global-config", tool.config, "--timeout", "60s")
            part = tool.json("get", bag, "--to", str(tmp_path / "part"), "--file", "sub/b", *net, store="two")
            assert Path(part["path"]).read_bytes() == (photos / "sub" / "b").read_bytes()
            assert (part["complete"], part["size"]) == (False, 300_000)
            assert [p.name for p in (tmp_path / "part" / "photos").iterdir()] == ["sub"]

            whole = tool.json("get", bag, "--to", str(tmp_path / "whole"), *net, store="three")
            assert (whole["complete"], whole["files_count"], whole["wrong"]) == (True, 3, 0)
            for name in ("a", "sub/b", "empty"):
                assert (tmp_path / "whole" / "photos" / name).read_bytes() == (photos / name).read_bytes()
            assert tool.json("get", bag, *net, store="three")["bytes"] == 0  # all is here
            for name in ("a", "empty"):
                (tmp_path / "whole" / "photos" / name).unlink()
            assert tool.json("get", bag, *net, store="three")["bytes"] >= 300_000  # what was deleted comes again
            assert (tmp_path / "whole" / "photos" / "a").read_bytes() == (photos / "a").read_bytes()
            assert (tmp_path / "whole" / "photos" / "empty").exists()
            assert tool.json("verify", bag, store="three")["ok"]
            assert tool.code("get", bag, "--to", str(tmp_path / "else"), *net, store="three") == 5

            handed = tool.json("seed", bag, store="one")
            assert (handed["running"], handed["bags"], handed["upload_limit"]) == (True, [bag], 32 << 20)
            assert tool.json("remove", bag, bag, store="one")["bags"] == [{"bag_id": bag, "deleted": 0}]
            assert tool.json("list", store="one")["bags"] == []
            assert (photos / "a").exists()
        finally:
            seeder.send_signal(signal.SIGTERM)
            assert seeder.wait(30) == 0


def test_a_bag_that_nobody_has_is_given_up_at_the_deadline(tool: Tool, tmp_path: Path) -> None:
    words = ("get", "ab" * 32, "--to", str(tmp_path / "x"), "--global-config", tool.config, "--timeout", "2s")
    assert tool.code(*words, store="two") == 7
    assert "kept" in tool.capsys.readouterr().err


def test_while_no_dht_node_answers_the_search_goes_on_until_the_deadline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "global.config.json"
    path.write_text('{"dht": {"static_nodes": {"nodes": []}}}', encoding="ascii")
    words = ["--to", str(tmp_path / "x"), "--global-config", str(path), "--timeout", "2s"]
    assert run(["bag", "get", "ab" * 32, "--store", str(tmp_path / "store"), *words]) == 7
    assert "goes on" in capsys.readouterr().err


def test_without_a_network_the_tool_says_what_to_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TONFS_GLOBAL_CONFIG", raising=False)
    monkeypatch.setenv("TONFS_VOLUME", str(tmp_path / "no-volume"))
    assert run(["bag", "get", "ab" * 32, "--store", str(tmp_path / "store"), "--to", str(tmp_path)]) == 2
    assert "--global-config" in capsys.readouterr().err
    assert run(["bag", "seed", "--store", str(tmp_path / "empty")]) == 3
