"""`tonfs wallet` and `tonfs contract` on a volume whose network is the devnet of this module."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.devnet.conftest import Devnet
from tonfs.chain import storage2
from tonfs.chain.address import friendly, parse
from tonfs.chain.api import AccountStatus
from tonfs.chain.intents import Treasurer
from tonfs.chain.lite import open_chain
from tonfs.chain.messages import Message
from tonfs.chain.wallet import Wallet
from tonfs.cli.init import make_volume
from tonfs.clock import SystemClock
from tonfs.ids import NANO, Address, BagId, NanoTon, ProviderKey

pytestmark = pytest.mark.devnet


class Facts:
    bag_id = BagId(b"\x31" * 32)
    file_size = 8 << 20
    piece_size = 1 << 20
    root_hash = b"\x22" * 32


@dataclass
class Volume:
    path: Path
    config: Path
    words: list[str]

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "tonfs", "--volume", str(self.path), *words]
        env = {"PATH": "/usr/bin:/bin", "TONFS_GLOBAL_CONFIG": str(self.config)}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=env)
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done

    def json(self, *words: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.run(*words, "--json").stdout)
        assert value["schema"] == f"tonfs.{words[0]}.{words[1]}/1"
        return value


@pytest.fixture
def volume(devnet: Devnet, tmp_path: Path) -> Volume:
    words = make_volume(tmp_path / "v", network="devnet")
    return Volume(tmp_path / "v", devnet.state / "global.config.json", words)


async def open_contract(devnet: Devnet, owner: Wallet, directory: Path) -> Address:
    address = storage2.contract_address(Facts(), owner.address)
    conn = sqlite3.connect(directory / "agent.db", isolation_level=None)
    async with open_chain(devnet.state / "global.config.json") as chain:
        while (await chain.account(owner.address)).status is AccountStatus.NONE:
            await chain.wait_block()
        terms = {ProviderKey(b"\1" * 32): storage2.Terms(3600, 10**6)}
        init = storage2.state_init(Facts(), owner.address)
        message = Message(address, NanoTon(NANO), storage2.modify_providers(5, terms), init)
        (await Treasurer(chain, owner, conn, SystemClock()).execute("open", address, [message], "open")).check()
    conn.close()
    return address


def test_a_new_wallet_is_empty_and_shows_no_words(volume: Volume) -> None:
    shown = volume.json("wallet", "show")
    wallet = Wallet.from_words(volume.words)
    assert (shown["raw"], shown["version"], shown["status"], shown["balance"]) == (wallet.address, "v4r2", "none", 0)
    assert parse(shown["address"]) == (wallet.address, False, False)
    text = volume.run("wallet", "show")
    assert volume.words[0] not in text.stdout.split()
    assert "0.00 TON" in text.stdout


def test_wallet_and_contract_are_shown_as_the_chain_proves_them(devnet: Devnet, volume: Volume, tmp_path: Path) -> None:
    owner = Wallet.from_words(volume.words)
    devnet.run("faucet", owner.address, "5")
    address = trio.run(open_contract, devnet, owner, tmp_path)
    shown = volume.json("wallet", "show")
    assert (shown["status"], shown["seqno"]) == ("active", 1)
    assert 3 * NANO < shown["balance"] < 4 * NANO
    for form in (address, friendly(address), friendly(address, bounceable=False)):
        contract = volume.json("contract", "show", form)
        assert contract["raw"] == address
        assert contract["bag_id"] == Facts.bag_id.hex()
        assert contract["owner"] == owner.address
        assert contract["balance"] - contract["available"] == storage2.RESERVE
        assert [p["key"] for p in contract["providers"]] == ["01" * 32]
        assert contract["providers"][0]["last_proof"] is None
    assert "last proof none yet" in volume.run("contract", "show", address).stdout


def test_what_is_no_contract_is_said_clearly(volume: Volume) -> None:
    missing = volume.run("contract", "show", "0:" + "0" * 63 + "5", code=3)
    assert "no storage contract" in missing.stderr
    assert "TF0003" in missing.stderr
    assert "not an address" in volume.run("contract", "show", "hello", code=2).stderr


def test_without_a_network_the_verbs_say_what_to_start(volume: Volume) -> None:
    volume.config = volume.path / "nothing.json"
    assert "tonfs up" in volume.run("wallet", "show", code=4).stderr


def test_lost_words_are_imported_and_another_wallet_is_refused(volume: Volume, tmp_path: Path) -> None:
    file, kept = tmp_path / "words.txt", volume.path / "keys" / "words"
    file.write_text("\n".join(volume.words))
    assert "already" in volume.run("wallet", "import", str(file)).stderr
    kept.unlink()
    shown = volume.run("wallet", "import", str(file))
    assert parse(shown.stdout.strip()).address == Wallet.from_words(volume.words).address
    assert kept.stat().st_mode & 0o777 == 0o600
    file.write_text(" ".join(make_volume(tmp_path / "other", network="devnet")))
    assert "another wallet" in volume.run("wallet", "import", str(file), code=5).stderr
    file.write_text("one two three")
    assert "3 words" in volume.run("wallet", "import", str(file), code=2).stderr
