"""Pure parts of a provider: states, settings, what is kept on disk."""

from __future__ import annotations

import itertools
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from tonfs.chain.storage2 import ProviderEntry, StorageContract, Terms
from tonfs.errors import Damaged, NotFound, UsageError
from tonfs.ids import Address, BagId, NanoTon, ProviderKey
from tonfs.provider.config import ProviderConfig
from tonfs.provider.rules import TABLE, Event, Record, State, advance, is_due, judge, rates
from tonfs.provider.store import ProviderStore

KEY = ProviderKey(b"k" * 32)
RECORD = Record(
    address=Address("0:" + "aa" * 32),
    bag_id=BagId(b"b" * 32),
    owner=Address("0:" + "cc" * 32),
    file_size=(1 << 63) + 5,
    piece_size=131072,
    merkle_hash=b"m" * 32,
    terms=Terms(600, (1 << 70) + 1),
    accepted_at=1_700_000_000,
)


def config(tmp_path: Path, **changes: int) -> ProviderConfig:
    base = ProviderConfig(tmp_path / "seed", tmp_path, tmp_path / "global.json", ("127.0.0.1", 1))
    return replace(base, **changes)  # type: ignore[arg-type]


def contract(entry: ProviderEntry | None, available: int) -> StorageContract:
    providers = {} if entry is None else {KEY: entry}
    return StorageContract(
        RECORD.address, RECORD.bag_id, RECORD.owner, 1 << 20, 4096, b"", providers, NanoTon(0), NanoTon(available)
    )


def test_every_state_and_event_leads_somewhere_and_the_end_is_final() -> None:
    for state, event in itertools.product(State, Event):
        assert advance(state, event) in State
    assert all(advance(State.DROPPED, event) is State.DROPPED for event in Event)
    assert {after for (before, _), after in TABLE.items() if before is not State.DROPPED} >= set(State) - {
        State.RESOLVING
    }


def test_only_contracts_that_never_worked_can_stall() -> None:
    assert advance(State.DOWNLOADING, Event.STALLED) is State.DROPPED
    assert advance(State.ACTIVE, Event.STALLED) is State.ACTIVE


def test_a_fresh_entry_is_due_and_then_after_each_span() -> None:
    fresh = ProviderEntry(0, 0, 1, 600, 1)
    assert is_due(fresh, 5)
    proved = replace(fresh, last_proof_time=1000)
    assert not is_due(proved, 1599)
    assert is_due(proved, 1600)


def test_a_judgement_names_the_event_and_the_reason(tmp_path: Path) -> None:
    settings = config(tmp_path)
    # One day, one MB: the rate is the bounty.
    entry = ProviderEntry(0, 1000, 1, 86400, 60_000_000)
    record = replace(RECORD, terms=entry.terms)

    def event(entry: ProviderEntry | None, available: int, now: int = 2000) -> Event:
        return judge(record, contract(entry, available), KEY, settings, now)[0]

    assert judge(record, None, KEY, settings, 0)[0] is Event.UNLISTED
    assert event(None, 10**9) is Event.UNLISTED
    assert event(entry, 60_000_000) is Event.FUNDED
    assert event(entry, 59_999_999) is Event.LOW_BALANCE
    assert event(entry, 0, now=1000 + 86400 + 3600) is Event.LOW_BALANCE
    assert event(entry, 0, now=1000 + 86400 + 3601) is Event.STARVED
    assert event(replace(entry, rate=49_999_999), 10**9) is Event.REFUSED
    assert event(replace(entry, max_span=599, rate=10**12), 10**9) is Event.REFUSED
    fresh = replace(entry, last_proof_time=0)
    assert event(fresh, 0, now=record.accepted_at + 3600) is Event.LOW_BALANCE
    assert event(fresh, 0, now=record.accepted_at + 3601) is Event.STARVED


def test_a_higher_price_of_ours_does_not_end_old_contracts(tmp_path: Path) -> None:
    entry = ProviderEntry(0, 1000, 1, 86400, 60_000_000)
    record = replace(RECORD, terms=entry.terms)
    dear = config(tmp_path, rate_per_mb_day=10**12)
    assert judge(record, contract(entry, 10**9), KEY, dear, 2000)[0] is Event.FUNDED


def test_rates_are_clipped_to_what_was_asked(tmp_path: Path) -> None:
    settings = config(tmp_path, max_bag_size=1000)
    assert (rates(settings, 700, 800).available, rates(settings, 700, 800).space_available) == (True, 700)
    for size, free in ((900, 800), (1001, 5000), (1 << 64, 1 << 40)):
        answer = rates(settings, size, free)
        assert (answer.available, answer.space_available) == (False, 0)


# Settings.

GOOD = """
seed_file = "seed"
directory = "state"
global_config = "/etc/global.config.json"
listen = "127.0.0.1:18555"
rate_per_mb_day = 5
"""


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "config.toml").write_text(text)
    return tmp_path / "config.toml"


def test_settings_are_read_and_paths_taken_from_the_file(tmp_path: Path) -> None:
    found = ProviderConfig.load(write(tmp_path, GOOD))
    assert found.seed_file == tmp_path / "seed"
    assert found.socket == tmp_path / "state" / "provider.sock"
    assert found.global_config == Path("/etc/global.config.json")
    assert found.listen == ("127.0.0.1", 18555)
    assert found.rate_per_mb_day == 5


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("max_spam = 5", "max_span"),
        ("min_span = 0", "min_span"),
        ("min_span = 900000", "longer"),
        ("space = 1.5", "whole number"),
        ("space = true", "whole number"),
        ("announce_ip = 5", "text"),
        ("x", "TOML"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, line: str, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        ProviderConfig.load(write(tmp_path, f"{GOOD}{line}\n"))
    assert word in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("listen", ["", "127.0.0.1", "localhost:5", "1.2.3.256:5", "1.2.3.4:70000", "1.2.3.4:x"])
def test_a_wrong_listen_address_is_named(tmp_path: Path, listen: str) -> None:
    with pytest.raises(UsageError, match="IPv4"):
        ProviderConfig.load(write(tmp_path, GOOD.replace("127.0.0.1:18555", listen)))


def test_missing_settings_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="listen"):
        ProviderConfig.load(write(tmp_path, 'seed_file = "a"\ndirectory = "b"\nglobal_config = "c"\n'))
    with pytest.raises(NotFound):
        ProviderConfig.load(tmp_path / "nothing.toml")


# The store.


def test_records_and_notes_survive_and_big_numbers_too(tmp_path: Path) -> None:
    store = ProviderStore(tmp_path / "p.db")
    later = replace(RECORD, address=Address("0:" + "bb" * 32), accepted_at=RECORD.accepted_at + 1)
    store.put(later)
    store.put(RECORD)
    store.put(RECORD.after(Event.RESOLVED))
    store.set_note("fault", "slow")
    store.close()
    store = ProviderStore(tmp_path / "p.db")
    assert store.records() == [RECORD.after(Event.RESOLVED), later]
    assert store.note("fault") == "slow"
    assert store.note("nothing") == ""
    store.remove(later.address)
    assert len(store.records()) == 1
    store.close()


def test_a_damaged_or_newer_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"not a database at all, but long enough to be looked at " * 20)
    with pytest.raises(Damaged):
        ProviderStore(tmp_path / "bad.db")
    store = ProviderStore(tmp_path / "p.db")
    store.put(RECORD)
    store.close()
    with sqlite3.connect(tmp_path / "p.db") as raw:
        raw.execute("UPDATE contracts SET state = 'nonsense'")
    raw.close()
    store = ProviderStore(tmp_path / "p.db")
    with pytest.raises(Damaged):
        store.records()
    store.close()
    with sqlite3.connect(tmp_path / "p.db") as raw:
        raw.execute("PRAGMA user_version=7")
    raw.close()
    with pytest.raises(Damaged, match="version 7"):
        ProviderStore(tmp_path / "p.db")
