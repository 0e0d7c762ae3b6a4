"""The provider protocol: bytes as the programs send them, and a link that finds a provider and keeps finding it."""

from __future__ import annotations

import binascii
import contextlib
from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.adnl import FakeEndpoint, FakeNet
from tonfs.clock import ManualClock
from tonfs.errors import BadPacket, DhtUnavailable, PeerTimeout, PeerUnreachable, UsageError
from tonfs.ids import Address, AdnlId, NanoTon, ProviderKey
from tonfs.network import provider_tl as wire
from tonfs.network import tl
from tonfs.network.api import Peer, Rates, StorageStatus
from tonfs.network.dht_client import DhtClient
from tonfs.network.dht_server import DhtServer
from tonfs.network.dht_types import address_key
from tonfs.network.keys import KeyPair
from tonfs.network.provider_link import ROUTE_LIFE, ProviderLink

RATES = Rates(True, NanoTon(10_000_000), NanoTon(50_000_000), 1 << 40, 60, 86_400)
STATUS = StorageStatus("active", "", 12345, b"\xb5\xee\x9c\x72proof")
CONTRACT = Address("0:" + "ab" * 32)
PROVIDER = KeyPair.from_seed(b"\x09" * 32)
STORAGE = KeyPair.from_seed(b"\x0a" * 32)
PROVIDER_KEY = ProviderKey(PROVIDER.public_key)

SCHEMA = {
    tl.PROVIDER_RATES_REQUEST: "storageProvider.ratesRequest size:long = storageProvider.RatesRequest",
    tl.PROVIDER_RATES_RESPONSE: (
        "storageProvider.ratesResponse available:Bool key:int256 rate_per_mb_day:bytes reward_address:int256 "
        "space_available_mb:long min_span:int max_span:int = storageProvider.RatesResponse"
    ),
    tl.PROVIDER_STORAGE_REQUEST: (
        "storageProvider.storageRequest contract_address:int256 size:long = storageProvider.StorageRequest"
    ),
    tl.PROVIDER_STORAGE_RESPONSE: (
        "storageProvider.storageResponse status:string reason:string downloaded:long = storageProvider.StorageResponse"
    ),
    tl.PROVIDER_ADNL_PROOF_REQUEST: (
        "storageProvider.storageAdnlProofRequest contract_address:int256 = storageProvider.StorageAdnlProofRequest"
    ),
    tl.PROVIDER_ADNL_PROOF_RESPONSE: (
        "storageProvider.storageAdnlProofResponse storage_key:int256 signature:bytes "
        "= storageProvider.StorageAdnlProofResponse"
    ),
    tl.PROVIDER_DHT_RECORD: "storageProvider.dhtRecord adnl_key:int256 = storageProvider.DHTRecord",
    wire.ADNL_PROVIDER_PROOF: (
        "storage.tonutils.adnlProviderProof provider_key:int256 = storage.tonutils.AdnlProviderProof"
    ),
}


@pytest.mark.parametrize("constructor", SCHEMA)
def test_ids_come_from_the_schema_text(constructor):
    assert binascii.crc32(SCHEMA[constructor].encode()) == constructor


def test_rates_as_the_go_program_sends_them():
    packed = wire.pack_rates(RATES)
    assert packed.hex() == (
        "309bb1f7"  # id from the text
        "b5757299"  # available
        "03989680"  # 10 000 000, big-endian, minimal, in TL bytes
        "0402faf080000000"  # 50 000 000, padded
        "0000000000010000"  # bytes of space, little-endian
        "3c000000"
        "80510100"
    )
    assert wire.parse_rates(packed) == RATES
    free = replace(RATES, rate_per_mb_day=NanoTon(0), available=False)
    assert wire.parse_rates(wire.pack_rates(free)) == free


def test_requests_and_answers_survive_the_wire():
    for request in (wire.RatesRequest(2**63), wire.StorageRequest(b"\1" * 32, 7), wire.AdnlProofRequest(b"\2" * 32)):
        packed = wire.pack_request(request)
        assert wire.parse_request(packed) == request
        with pytest.raises(BadPacket):
            wire.parse_request(packed + bytes(4))
    assert wire.parse_storage(wire.pack_storage(STATUS)) == STATUS


def test_an_offer_that_contradicts_itself_or_overflows_is_refused():
    with pytest.raises(BadPacket):
        wire.parse_rates(wire.pack_rates(replace(RATES, min_span=100, max_span=99)))
    with pytest.raises(BadPacket):
        wire.parse_rates(wire.pack_rates(replace(RATES, rate_per_mb_day=NanoTon(1 << 121))))


def test_foreign_text_cannot_forge_log_lines():
    status = wire.parse_storage(wire.pack_storage(replace(STATUS, status="error", reason="a\nb\x1b[2Jc")))
    assert status.reason == "a b [2Jc"
    raw = tl.Writer(tl.PROVIDER_STORAGE_RESPONSE).bytes_(b"\xff\xfe").bytes_(b"").u64(0).bytes_(b"").done()
    assert wire.parse_storage(raw).status == "\ufffd\ufffd"


def test_an_adnl_proof_counts_only_with_the_storage_keys_signature_over_this_provider():
    good = wire.pack_adnl_proof(STORAGE.public_key, STORAGE.sign(wire.adnl_proof_message(PROVIDER_KEY)))
    assert wire.parse_adnl_proof(good, PROVIDER_KEY) == STORAGE.short_id
    with pytest.raises(BadPacket):
        wire.parse_adnl_proof(good, ProviderKey(STORAGE.public_key))
    forged = wire.pack_adnl_proof(STORAGE.public_key, PROVIDER.sign(wire.adnl_proof_message(PROVIDER_KEY)))
    with pytest.raises(BadPacket):
        wire.parse_adnl_proof(forged, PROVIDER_KEY)


@given(st.binary(max_size=200), st.sampled_from(sorted(SCHEMA)))
def test_foreign_bytes_end_in_bad_packet(data, head):
    data = head.to_bytes(4, "little") + data
    for parse in (wire.parse_request, wire.parse_rates, wire.parse_storage):
        with contextlib.suppress(BadPacket):
            parse(data)
    with contextlib.suppress(BadPacket):
        wire.parse_adnl_proof(data, PROVIDER_KEY)


class Market:
    """One DHT server, one provider with its records published, one client with a link."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.net = FakeNet(nursery)
        self.clock = ManualClock(1_700_000_000, base=trio.current_time)
        self.nursery = nursery
        self.answers: dict[int, bytes | None] = {
            tl.PROVIDER_RATES_REQUEST: wire.pack_rates(RATES),
            tl.PROVIDER_STORAGE_REQUEST: wire.pack_storage(STATUS),
            tl.PROVIDER_ADNL_PROOF_REQUEST: wire.pack_adnl_proof(
                STORAGE.public_key, STORAGE.sign(wire.adnl_proof_message(PROVIDER_KEY))
            ),
        }
        self.requests: list[wire.Request] = []

    async def start(self, *, publish: bool = True) -> Market:
        self.dht_endpoint = self.net.endpoint("dht")
        self.server = DhtServer(self.dht_endpoint, self.clock)
        await self.nursery.start(self.server.run)
        self.provider, self.provider_dht = self.member("provider")
        self.provider.set_handler(self.handle)
        _, dht = client, self.dht = self.member("client")
        self.link = ProviderLink(client, dht)
        if publish:
            await self.provider_dht.publish_address()
            await self.provider_dht.publish_provider(PROVIDER, self.provider.id)
        return self

    def member(self, name: str) -> tuple[FakeEndpoint, DhtClient]:
        endpoint = self.net.endpoint(name)
        return endpoint, DhtClient(endpoint, [self.server.node_entry()], self.clock)

    async def handle(self, peer: Peer, data: bytes, rldp: bool) -> bytes | None:
        assert rldp
        self.requests.append(wire.parse_request(data))
        return self.answers[tl.constructor_id(data)]


async def test_the_three_questions_are_asked_by_rldp_and_answered(nursery, autojump_clock):
    market = await Market(nursery).start()
    assert await market.link.provider_rates(PROVIDER_KEY, 1 << 30, timeout=5) == RATES
    assert await market.link.provider_storage(PROVIDER_KEY, CONTRACT, 77, timeout=5) == STATUS
    assert await market.link.provider_adnl(PROVIDER_KEY, CONTRACT, timeout=5) == STORAGE.short_id
    contract = bytes.fromhex("ab" * 32)
    assert market.requests == [
        wire.RatesRequest(1 << 30),
        wire.StorageRequest(contract, 77),
        wire.AdnlProofRequest(contract),
    ]


async def test_the_way_to_a_provider_and_its_storage_peer_are_remembered(nursery, autojump_clock):
    market = await Market(nursery).start()
    for _ in range(5):
        await market.link.provider_rates(PROVIDER_KEY, 1, timeout=5)
        await market.link.provider_adnl(PROVIDER_KEY, CONTRACT, timeout=5)
    found = [sent for sent in market.net.sent if sent.constructor == tl.DHT_FIND_VALUE]
    asked = [r for r in market.requests if isinstance(r, wire.AdnlProofRequest)]
    assert len(found) <= 2
    assert len(asked) == 1
    await trio.sleep(ROUTE_LIFE + 3600)
    await market.provider_dht.publish_address()
    await market.provider_dht.publish_provider(PROVIDER, market.provider.id)
    await market.link.provider_adnl(PROVIDER_KEY, CONTRACT, timeout=5)
    assert len([r for r in market.requests if isinstance(r, wire.AdnlProofRequest)]) == 2


async def test_a_provider_that_moved_is_found_again_within_the_same_question(nursery, autojump_clock):
    market = await Market(nursery).start()
    await market.link.provider_rates(PROVIDER_KEY, 1, timeout=5)
    await trio.sleep(60)
    market.provider.move(("127.0.0.1", 4999))
    await market.provider_dht.publish_address()
    assert await market.link.provider_rates(PROVIDER_KEY, 1, timeout=20) == RATES


async def test_a_provider_that_comes_back_elsewhere_is_found_by_the_next_question(nursery, autojump_clock):
    market = await Market(nursery).start()
    market.provider.kill()
    for _ in range(2):
        with pytest.raises(PeerTimeout):
            await market.link.provider_rates(PROVIDER_KEY, 1, timeout=5)
    replacement, dht = market.member("provider, reinstalled")
    replacement.set_handler(market.handle)
    await trio.sleep(1)
    await dht.publish_address()
    await dht.publish_provider(PROVIDER, replacement.id)
    assert await market.link.provider_rates(PROVIDER_KEY, 1, timeout=5) == RATES


async def test_not_found_unreachable_and_offline_are_three_things(nursery, autojump_clock):
    market = await Market(nursery).start(publish=False)
    with pytest.raises(PeerUnreachable):
        await market.link.provider_rates(PROVIDER_KEY, 1, timeout=5)
    await market.provider_dht.publish_provider(PROVIDER, market.provider.id)
    with pytest.raises(PeerUnreachable):
        await market.link.provider_rates(PROVIDER_KEY, 1, timeout=5)
    market.dht_endpoint.kill()
    with pytest.raises(DhtUnavailable):
        await market.link.provider_rates(PROVIDER_KEY, 1, timeout=5)
    start = trio.current_time()
    with pytest.raises(PeerTimeout):
        await market.link.provider_rates(PROVIDER_KEY, 1, timeout=1)
    assert trio.current_time() - start == pytest.approx(1)


async def test_a_silent_provider_costs_exactly_the_timeout(nursery, autojump_clock):
    market = await Market(nursery).start()
    market.answers[tl.PROVIDER_RATES_REQUEST] = None
    for _ in range(2):
        start = trio.current_time()
        with pytest.raises(PeerTimeout):
            await market.link.provider_rates(PROVIDER_KEY, 1, timeout=7)
        assert trio.current_time() - start == pytest.approx(7)


async def test_nonsense_from_a_provider_is_a_bad_packet(nursery, autojump_clock):
    market = await Market(nursery).start()
    market.answers[tl.PROVIDER_RATES_REQUEST] = b"nonsense"
    market.answers[tl.PROVIDER_ADNL_PROOF_REQUEST] = wire.pack_adnl_proof(STORAGE.public_key, bytes(64))
    with pytest.raises(BadPacket):
        await market.link.provider_rates(PROVIDER_KEY, 1, timeout=5)
    with pytest.raises(BadPacket):
        await market.link.provider_adnl(PROVIDER_KEY, CONTRACT, timeout=5)


async def test_the_wrong_record_of_go_providers_0_4_still_leads_to_them(nursery, autojump_clock):
    market = await Market(nursery).start(publish=False)
    await market.provider_dht.publish_address()
    wrong = AdnlId(address_key(market.provider.id).id)
    await market.provider_dht.publish_provider(PROVIDER, wrong)
    assert await market.link.provider_rates(PROVIDER_KEY, 1, timeout=5) == RATES


async def test_contracts_outside_the_basechain_are_a_usage_error(nursery, autojump_clock):
    market = await Market(nursery).start()
    for bad in ("-1:" + "ab" * 32, "0:ab", "nonsense"):
        with pytest.raises(UsageError):
            await market.link.provider_adnl(PROVIDER_KEY, Address(bad), timeout=5)
