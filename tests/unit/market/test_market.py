"""Terms, choice and discovery of providers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.ledger_chain import ledger_chain
from tonfs.chain.messages import Message, comment
from tonfs.chain.storage2 import MB_DAY, MIN_BOUNTY, bounty, rate_for_bounty
from tonfs.chain.wallet import Version, Wallet
from tonfs.errors import Refused
from tonfs.ids import NANO, NanoTon, ProviderKey
from tonfs.market import REGISTRY, Quote, discover, select, terms
from tonfs.market.quote import BOUNTY_FACTOR, SPAN_FACTOR
from tonfs.network.api import Rates
from tonfs.policy import ReplicaPolicy

KEY = ProviderKey(b"\x01" * 32)
MB = 1 << 20


def rates(
    rate: int = 100_000,
    room: int = 1 << 40,
    spans: tuple[int, int] = (60, 86400),
    available: bool = True,
    bounty: int = 50_000_000,
) -> Rates:
    return Rates(available, NanoTon(rate), NanoTon(bounty), room, *spans)


@given(
    size=st.integers(1, 1 << 40),
    rate=st.integers(0, 10_000_000),
    least=st.integers(86400, 10**6),
    more=st.integers(0, 10**7),
)
def test_terms_always_reach_the_minimum_bounty_and_stay_inside_the_spans(
    size: int, rate: int, least: int, more: int
) -> None:
    quote = terms(KEY, rates(rate, spans=(least, least + more)), size, ReplicaPolicy())
    assert quote.bounty >= MIN_BOUNTY
    assert least <= quote.span <= least + more
    assert quote.rate >= rate
    if quote.rate > max(1, rate):
        assert bounty(size, quote.rate - 1, quote.span) < MIN_BOUNTY


def test_a_small_bag_pays_more_than_was_asked_a_large_one_does_not() -> None:
    assert terms(KEY, rates(), 20_000 * MB, ReplicaPolicy()).rate == 100_000
    assert terms(KEY, rates(), MB, ReplicaPolicy()).rate > 100_000


@pytest.mark.parametrize(
    "offer",
    [rates(available=False), rates(room=MB - 1), rates(10_000_001), rates(spans=(0, 0)), rates(spans=(100, 50)),
     rates(spans=(1, 1)), rates(spans=(1, 75_599)), rates(spans=(8 * 604_800 + 1, 1 << 31)),
     rates(bounty=10**12), rates(bounty=1 << 100)],
)  # fmt: skip
def test_offers_that_do_not_fit_are_refused(offer: Rates) -> None:
    with pytest.raises(Refused):
        terms(KEY, offer, MB, ReplicaPolicy())


@given(
    rate=st.integers(0, 1 << 63),
    bounty=st.integers(0, 1 << 64),
    least=st.integers(0, 1 << 32),
    more=st.integers(0, 1 << 32),
    size=st.integers(1, 1 << 40),
)
def test_whatever_is_asked_a_day_costs_what_the_policy_allows_or_a_few_minimum_bounties(
    rate: int, bounty: int, least: int, more: int, size: int
) -> None:
    policy = ReplicaPolicy()
    try:
        quote = terms(KEY, rates(rate, spans=(least, least + more), bounty=bounty), size, policy)
    except Refused:
        return
    least_bounty = BOUNTY_FACTOR * MIN_BOUNTY
    assert quote.rate <= max(policy.max_rate, rate_for_bounty(size, policy.span // SPAN_FACTOR, least_bounty))
    one_more = size * quote.span // MB_DAY + 1  # a rate is a whole number
    assert quote.bounty <= max(policy.max_rate * size * quote.span // MB_DAY, least_bounty + one_more)


def offer(number: int, per_mb: int, span: int = 86400) -> Quote:
    return Quote(ProviderKey(bytes([number]) * 32), 1000 * MB, NanoTon(per_mb), NanoTon(per_mb), span, 1 << 40)


def test_the_cheapest_are_chosen_and_ties_are_broken_the_same_way_each_time() -> None:
    quotes = [offer(3, 50), offer(1, 70), offer(2, 50), offer(4, 50, 90000)]
    order = [q.provider[0] for q in select(quotes, 4)]
    assert order == [4, 2, 3, 1]
    assert order == [q.provider[0] for q in select(list(reversed(quotes)), 4)]


def test_a_bad_score_makes_a_cheap_provider_dear() -> None:
    quotes = [offer(1, 50), offer(2, 70)]
    assert select(quotes, 1, scores={quotes[0].provider: 0.5})[0].provider[0] == 2


def test_excluded_and_doubled_providers_are_not_hired_twice() -> None:
    quotes = [offer(1, 50), offer(1, 40), offer(2, 60)]
    chosen = select(quotes, 5, exclude={quotes[2].provider})
    assert [(q.provider[0], q.rate) for q in chosen] == [(1, 40)]


async def test_only_a_provider_itself_can_put_itself_on_the_list(tmp_path: Path, autojump_clock: object) -> None:
    async with ledger_chain(tmp_path) as chain:
        honest = Wallet.from_seed(b"\x05" * 32, Version.V3R2)
        thief = Wallet.from_seed(b"\x06" * 32, Version.V3R2)
        for wallet, named in ((honest, honest.public_key), (thief, b"\x07" * 32)):
            await chain.give(wallet.address, NANO)
            body = comment(f"tsp-{named.hex()}")
            state = await chain.account(wallet.address)
            order = Message(REGISTRY, NanoTon(10_000_000), body, bounce=False)
            await chain.send_boc(wallet.sign(wallet.seqno(state), await chain.now() + 60, [order]).boc)
            await chain.wait_block()
            await chain.wait_block()
        assert await discover(chain) == [ProviderKey(honest.public_key)]
