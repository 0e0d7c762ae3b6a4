"""Provider processes: started, broken, restarted, stopped; a small stand-in process plays the provider."""

from __future__ import annotations

import os
import signal
import stat
import sys
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tonfs.chain.address import parse_address
from tonfs.devnet import supervisor as module
from tonfs.devnet.state import ProviderState, StateDir
from tonfs.devnet.supervisor import Provider, Supervisor, prepare
from tonfs.errors import NotFound, UsageError

SCRIPT = Path(__file__).parents[2] / "fakes" / "provider_process.py"


def command(mode: str) -> Callable[[Path], list[str]]:
    return lambda config: [sys.executable, str(SCRIPT), str(config), mode]


def providers(tmp_path: Path, count: int = 1, mode: str = "") -> list[Provider]:
    directory = StateDir(tmp_path)
    directory.create()
    return [prepare(directory, ProviderState(n, 20000 + n, 60_000 + n), command(mode)) for n in range(1, count + 1)]


@asynccontextmanager
async def running(rows: list[Provider], notes: list[tuple[int, str]] | None = None) -> AsyncIterator[Supervisor]:
    def note(number: int, kind: str) -> None:
        if notes is not None:
            notes.append((number, kind))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            boss = Supervisor(rows, on_fault=note)
            await nursery.start(boss.run)
            yield boss
            nursery.cancel_scope.cancel()


def told(provider: Provider) -> list[str]:
    path = provider.directory / "faults.txt"
    return path.read_text().split() if path.exists() else []


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.sleep(0.02)


def test_a_prepared_provider_has_a_private_seed_and_a_config_that_stays(tmp_path: Path) -> None:
    (one,) = providers(tmp_path)
    seed = one.directory / "seed"
    assert stat.S_IMODE(seed.stat().st_mode) == 0o600
    config = tomllib.loads((one.directory / "config.toml").read_text())
    assert config == {
        "seed_file": str(seed),
        "listen": "127.0.0.1:20001",
        "announce_ip": "127.0.0.1",
        "global_config": str(tmp_path / "global.config.json"),
        "rate_per_mb_day": 60_001,
        "min_span": 60,
        "max_span": 30 * 86400,
        "space": 4 << 30,
        "max_bag_size": 4 << 30,
        "directory": str(one.directory),
    }
    (again,) = providers(tmp_path)
    assert again.key == one.key
    assert again.address == one.address
    assert parse_address(one.summary()["address"]) == one.address


async def test_providers_run_and_stop_together(tmp_path: Path) -> None:
    rows = providers(tmp_path, 3)
    async with running(rows) as boss:
        await boss.wait_up()
        pids = [p.child.pid for p in rows]
        assert all(pids)
        assert {p.phase for p in rows} == {"running"}
    assert [p.child.pid for p in rows] == [None, None, None]
    for pid in pids:
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.allow_logs
async def test_a_provider_that_crashes_comes_back_and_learns_its_fault_again(tmp_path: Path) -> None:
    (one,) = providers(tmp_path)
    async with running([one]) as boss:
        await boss.wait_up()
        await boss.set_fault(one, "slow")
        assert told(one) == ["slow"]
        pid = one.child.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: one.restarts == 1 and one.phase == "running")
        assert told(one) == ["slow", "slow"]
        assert one.child.pid != pid


async def test_vanish_kills_and_none_brings_back(tmp_path: Path) -> None:
    notes: list[tuple[int, str]] = []
    (one,) = providers(tmp_path)
    async with running([one], notes) as boss:
        await boss.wait_up()
        await boss.set_fault(one, "vanish")
        await until(lambda: one.phase == "away")
        await trio.sleep(1.0)
        assert one.child.pid is None
        assert one.summary()["fault"] == "vanish"
        assert one.restarts == 0
        await boss.set_fault(one, "none")
        await until(lambda: one.phase == "running")
        assert told(one) == []
    assert notes == [(1, "vanish"), (1, "none")]


async def test_a_provider_that_vanished_before_is_not_started(tmp_path: Path) -> None:
    directory = StateDir(tmp_path)
    directory.create()
    one = prepare(directory, ProviderState(1, 20001, 60_001, "vanish"), command(""))
    async with running([one]) as boss:
        await boss.wait_up()
        assert (one.phase, one.child.pid) == ("away", None)
        await boss.set_fault(one, "hash-only")
        await until(lambda: one.phase == "running")
        assert told(one) == ["hash-only"]


@pytest.mark.allow_logs
async def test_a_fault_that_is_not_taken_is_not_remembered(tmp_path: Path) -> None:
    (one,) = providers(tmp_path, mode="crash")
    async with running([one]) as boss:
        await boss.wait_up()
        with pytest.raises(module.TonfsError):
            await boss.set_fault(one, "silent")
        assert one.fault == "none"
        with pytest.raises(UsageError):
            await boss.set_fault(one, "lazy")


@pytest.mark.allow_logs
async def test_a_provider_that_cannot_start_is_tried_with_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.05)
    (one,) = providers(tmp_path, mode="broken")
    async with running([one]):
        await until(lambda: one.restarts >= 3)
    assert one.child.log_path.read_text().count("nothing works") >= 3


async def test_providers_are_found_by_number_or_key(tmp_path: Path) -> None:
    rows = providers(tmp_path, 2)
    boss = Supervisor(rows)
    assert boss.find("2") is rows[1]
    assert boss.find(rows[0].key.hex()[:8].upper()) is rows[0]
    for word in ("3", "zz", "", "abcd" * 16):
        with pytest.raises(NotFound):
            boss.find(word)
