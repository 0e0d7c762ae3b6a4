"""Control sockets: calls, errors, lost connections, long paths, strangers' bytes."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tonfs.control import ControlClient, call_sync, serve, wire
from tonfs.errors import BadPacket, Busy, NotRunning, Refused, TimedOut, TonfsError


async def echo(params: dict[str, Any]) -> dict[str, Any]:
    return params


async def refuse(_params: dict[str, Any]) -> dict[str, Any]:
    raise Refused("No.", hint="Ask nicely.")


async def hang(_params: dict[str, Any]) -> dict[str, Any]:
    await trio.sleep_forever()
    return {}


HANDLERS = {"echo": echo, "refuse": refuse, "hang": hang}


async def test_a_call_brings_the_result_and_errors_keep_their_class(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: serve(path, HANDLERS, task_status=task_status))
        client = ControlClient(path, who="test")
        await nursery.start(client.run)
        assert await client.call("echo", {"a": 1}) == {"a": 1}
        with pytest.raises(Refused, match="No") as caught:
            await client.call("refuse")
        assert caught.value.hint == "Ask nicely."
        with pytest.raises(TonfsError, match="Unknown control method"):
            await client.call("nothing")
        with pytest.raises(TimedOut):
            await client.call("hang", timeout=0.05)
        assert await trio.to_thread.run_sync(lambda: call_sync(path, "echo", {"b": 2}, who="test")) == {"b": 2}
        nursery.cancel_scope.cancel()


async def test_a_slow_answer_does_not_hold_up_others_and_a_restart_is_survived(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with trio.open_nursery() as nursery:
        client = ControlClient(path, who="test")
        await nursery.start(client.run)
        with pytest.raises(NotRunning):
            await client.call("echo")
        for _ in range(2):
            async with trio.open_nursery() as server:
                await server.start(lambda task_status: serve(path, HANDLERS, task_status=task_status))
                server.start_soon(_ignore_loss, client)
                assert await client.call("echo", {"n": 1}) == {"n": 1}
                server.cancel_scope.cancel()
            assert not path.exists()
        nursery.cancel_scope.cancel()


async def _ignore_loss(client: ControlClient) -> None:
    with pytest.raises(NotRunning):
        await client.call("hang", timeout=30)


async def test_the_same_socket_is_served_once(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: serve(path, HANDLERS, task_status=task_status))
        with pytest.raises(Busy):
            await serve(path, HANDLERS)
        nursery.cancel_scope.cancel()


async def test_a_socket_in_a_deep_directory_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    path = deep / "s.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: serve(path, HANDLERS, task_status=task_status))
        client = ControlClient(path, who="test")
        await nursery.start(client.run)
        assert await client.call("echo", {"x": "y"}) == {"x": "y"}
        nursery.cancel_scope.cancel()


@pytest.mark.allow_logs
async def test_garbage_ends_only_its_own_connection(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: serve(path, HANDLERS, task_status=task_status))
        for garbage in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x03{]}", b"\x00\x00\x00\x02[]"):
            stream = await trio.open_unix_socket(str(path))
            await stream.send_all(garbage)
            assert await stream.receive_some(1) == b""
            await stream.aclose()
        reply = await trio.to_thread.run_sync(lambda: call_sync(path, "echo", {"ok": 1}, who="test"))
        assert reply == {"ok": 1}
        nursery.cancel_scope.cancel()


def test_nobody_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="front does not run"):
        call_sync(tmp_path / "none.sock", "ping", who="front")


def test_a_server_that_never_answers_times_out(tmp_path: Path) -> None:
    path = tmp_path / "mute.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(TimedOut):
            call_sync(path, "ping", who="front", timeout=0.05)


@given(st.binary(max_size=200))
def test_any_frame_body_is_an_object_or_a_bad_packet(body: bytes) -> None:
    with contextlib.suppress(BadPacket):
        assert isinstance(wire.decode(body), dict)


def test_deep_nesting_is_a_bad_packet() -> None:
    with pytest.raises(BadPacket):
        wire.decode(b'{"a":' + b"[" * 100_000)


async def test_another_user_is_not_answered_whatever_the_mode_of_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    monkeypatch.chdir(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: serve(tmp_path / "s.sock", HANDLERS, task_status=task_status))
        tmp_path.chmod(0o755)
        (tmp_path / "s.sock").chmod(0o666)

        def ask(user: int) -> bytes:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.settimeout(10.0)
                os.seteuid(user)
                try:
                    sock.connect("s.sock")
                finally:
                    os.seteuid(0)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    sock.sendall(wire.encode({"id": 1, "method": "echo", "params": {}}))
                    return sock.recv(100)
                return b""

        assert b"result" in await trio.to_thread.run_sync(ask, 0)
        assert await trio.to_thread.run_sync(ask, 65534) == b""
        nursery.cancel_scope.cancel()
