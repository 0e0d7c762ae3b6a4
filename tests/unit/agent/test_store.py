"""agent.db: what is written survives, what is illegal is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tonfs.agent.placement import Event, IllegalTransition, State
from tonfs.agent.store import AgentStore, AuditEntry, Receipt
from tonfs.audit import Record, Verdict
from tonfs.errors import Damaged
from tonfs.ids import Address, BagId, ProviderKey

BAG = BagId(b"\x01" * 32)
KEY = ProviderKey(b"\x02" * 32)


def filled(path: Path) -> AgentStore:
    store = AgentStore(path)
    store.add_bag(BAG, b"info", 1000, 3, 10.0)
    store.quote(BAG, KEY, 100, 60, 11.0)
    return store


def test_everything_is_there_after_a_reopen(tmp_path: Path) -> None:
    store = filled(tmp_path / "agent.db")
    store.set_contract(BAG, Address("0:" + "ab" * 32))
    store.event(BAG, KEY, Event.LISTED, 12.0)
    entry = AuditEntry(Verdict.HEALTHY, ((3, "ok"), (7, "ok")), 262144, 99, Record(), "fine")
    store.record_audit(BAG, KEY, entry, 13.0)
    store.event(BAG, KEY, Event.HEALTHY, 13.0)
    store.close()
    again = AgentStore(tmp_path / "agent.db")
    (placement,) = again.placements(BAG)
    assert placement.state is State.ACTIVE
    assert (placement.audit_pieces, placement.audit_bytes, placement.last_proof) == (2, 262144, 99)
    assert again.bags("live")[0].contract == "0:" + "ab" * 32
    again.close()


def test_adding_a_known_bag_again_changes_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path / "agent.db")
    store.set_local(BAG, False)
    store.add_bag(BAG, b"info", 1000, 3, 99.0)
    bag = store.bag(BAG)
    assert bag is not None
    assert not bag.local
    store.close()


def test_an_illegal_event_leaves_the_placement_alone(tmp_path: Path) -> None:
    store = filled(tmp_path / "agent.db")
    with pytest.raises(IllegalTransition):
        store.event(BAG, KEY, Event.HEALTHY, 12.0)
    assert store.placements(BAG)[0].state is State.QUOTED
    store.close()


def test_a_gone_provider_taken_up_again_starts_with_a_clean_record(tmp_path: Path) -> None:
    store = filled(tmp_path / "agent.db")
    store.event(BAG, KEY, Event.LISTED, 12.0)
    store.record_audit(BAG, KEY, AuditEntry(Verdict.FAILED, ((0, "wrong"),), 0, 5, Record(1, 2), "x"), 13.0)
    for event in (Event.CONDEMN, Event.REMOVE, Event.REMOVED):
        store.event(BAG, KEY, event, 14.0)
    store.quote(BAG, KEY, 200, 60, 15.0)
    (placement,) = store.placements(BAG)
    assert placement.record == Record()
    assert placement.audit_verdict is None
    assert placement.rate == 200
    store.close()


def test_a_store_of_before_directories_could_ask_for_replicas_is_brought_up_to_date(tmp_path: Path) -> None:
    store = filled(tmp_path / "agent.db")
    store.conn.execute("ALTER TABLE bag DROP COLUMN replicas")
    store.conn.execute("PRAGMA user_version=1")
    store.close()
    store = AgentStore(tmp_path / "agent.db")
    assert [bag.replicas for bag in store.bags()] == [None]
    store.set_replicas(store.bags()[0].bag_id, 2)
    assert store.bags()[0].replicas == 2
    store.close()


def test_a_future_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    store = filled(tmp_path / "agent.db")
    store.conn.execute("PRAGMA user_version=99")
    store.close()
    with pytest.raises(Damaged):
        AgentStore(tmp_path / "agent.db")


def test_receipts_come_back_as_written(tmp_path: Path) -> None:
    store = filled(tmp_path / "agent.db")
    receipt = Receipt(BAG, Address("0:" + "cd" * 32), 20.0, 100, 60, 30, 5, 5)
    store.add_receipt(receipt)
    assert store.receipts() == [receipt]
    store.close()
