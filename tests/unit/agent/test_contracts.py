"""What a contract should list, and what is attached so that it can pay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from tonfs.agent.contracts import GAS_RESERVE, deposit, lists
from tonfs.bag import TorrentInfo
from tonfs.chain.storage2 import ProviderEntry, StorageContract, Terms, bounty
from tonfs.ids import Address, BagId, NanoTon, ProviderKey

ANN, BOB = ProviderKey(b"a" * 32), ProviderKey(b"b" * 32)
TERMS = Terms(86400, 1000)


def contract(*providers: tuple[ProviderKey, Terms]) -> StorageContract:
    entries = {key: ProviderEntry(0, 0, 0, terms.max_span, terms.rate) for key, terms in providers}
    return StorageContract(
        Address("0:1"), BagId(bytes(32)), Address("0:2"), 1, 1, bytes(32), entries, NanoTon(0), NanoTon(0)
    )


def test_a_contract_is_right_only_with_exactly_these_providers_on_exactly_these_terms() -> None:
    wanted = {ANN: TERMS, BOB: TERMS}
    assert lists(contract((ANN, TERMS), (BOB, TERMS)), wanted)
    assert lists(None, {})
    assert not lists(None, wanted)
    assert not lists(contract((ANN, TERMS)), wanted)
    assert not lists(contract((ANN, TERMS), (BOB, TERMS)), {ANN: TERMS})
    assert not lists(contract((ANN, TERMS), (BOB, Terms(86400, 1001))), wanted)
    assert not lists(contract((ANN, TERMS), (BOB, Terms(86401, 1000))), wanted)


@dataclass(frozen=True)
class Info:
    file_size: int


def test_a_deposit_pays_every_provider_for_the_wanted_spans_and_no_more() -> None:
    info = cast(TorrentInfo, Info(100 << 30))
    each = bounty(info.file_size, TERMS.rate, TERMS.max_span)
    wanted = {ANN: TERMS, BOB: TERMS}
    assert deposit(0, info, wanted, 4) == 8 * each + GAS_RESERVE
    assert deposit(3 * each, info, wanted, 4) == 5 * each + GAS_RESERVE
    assert deposit(100 * each, info, wanted, 4) == GAS_RESERVE
