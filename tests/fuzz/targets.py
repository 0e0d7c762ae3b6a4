"""Every parser that reads what a stranger sent, with good examples to start from.

A target takes any bytes: it returns, or raises the errors of its format (`BadData`). Anything else is a bug, as is a
call that takes long or much memory for what it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

import trio

from tonfs.bag import BagHeader, PieceTree, TorrentInfo, verify_proof
from tonfs.bag.boc import Cell, parse_boc, to_boc
from tonfs.bagfiles.pack import PackEntry, PackManifest, PackRange
from tonfs.chain.cells import cells_from_boc
from tonfs.control import wire as control_wire
from tonfs.errors import BadData, NotRunning, Refused, UsageError
from tonfs.ids import BagId, Inode, NanoTon, ProviderKey
from tonfs.network import adnl_packet, dht_types, dht_wire, overlay, provider_tl, rldp2, storage_tl, tl
from tonfs.network.address import AddressList
from tonfs.network.api import Rates, StorageStatus
from tonfs.network.global_config import parse_global_config
from tonfs.network.keys import KeyPair

from . import channel, daemons

NOW = 1_700_000_000
KEY = KeyPair.from_seed(bytes(range(32)))
PROVIDER = ProviderKey(KEY.public_key)
BAG = BagId(bytes.fromhex("d191c07445c59f22b1525008897f07398f341f3a7cf70ad3e2fd9ba4c8998571"))
ADDRESSES = AddressList((("127.0.0.1", 4400),), version=NOW, reinit_date=NOW)
PIECES = [bytes([n]) * 4096 for n in range(5)]
TREE = PieceTree([sha256(piece).digest() for piece in PIECES])
HEADER = BagHeader(b"dir/", (b"a", b"b/c"), (100, 20_000))
INFO = TorrentInfo(
    piece_size=4096,
    file_size=len(HEADER.to_bytes()) + HEADER.data_size,
    root_hash=TREE.root_hash,
    header_size=len(HEADER.to_bytes()),
    header_hash=sha256(HEADER.to_bytes()).digest(),
    description=b"a description",
)


@dataclass(frozen=True)
class Target:
    parse: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    errors: tuple[type[Exception], ...] = (BadData,)

    def __call__(self, data: bytes) -> None:
        try:
            self.parse(data)
        except self.errors:
            return


def _contents(plain: bytes) -> None:
    contents = adnl_packet.parse_contents(plain)
    if contents.signature is not None:
        adnl_packet.check_signature(contents, KEY.public_key)


def _packet(*messages: adnl_packet.Message) -> bytes:
    packed = [adnl_packet.pack_message(message) for message in messages]
    return adnl_packet.build_contents(packed, seqno=1, confirm_seqno=0, rand1=b"1234567", rand2=b"7654321")


def _header(data: bytes) -> None:
    """The hash is part of what is checked: give every input the info that would vouch for it."""
    info = TorrentInfo(
        piece_size=4096,
        file_size=len(data) + HEADER.data_size,
        root_hash=TREE.root_hash,
        header_size=max(1, len(data)),
        header_hash=sha256(data).digest(),
        description=b"",
    )
    BagHeader.parse(data, info)


def _member() -> overlay.OverlayNode:
    return overlay.sign_node(KEY.public_key, KEY.sign, overlay.overlay_id(BAG), NOW)


def _dht_answer(data: bytes) -> None:
    for parse in (dht_wire.parse_value_result, dht_wire.parse_nodes, dht_wire.parse_node, dht_wire.parse_pong):
        try:
            result = parse(data)
        except BadData:
            continue
        if isinstance(result, dht_types.DhtValue):
            result.check(NOW)


def _dht_query(data: bytes) -> None:
    _, query = dht_wire.parse_query(data)
    if isinstance(query, dht_wire.Store):
        query.value.check(NOW)


_MESSAGES = (
    adnl_packet.Query(bytes(32), b"q" * 30),
    adnl_packet.Answer(b"\1" * 32, b"answer"),
    adnl_packet.Custom(b"c" * 40),
    adnl_packet.Reinit(NOW),
    adnl_packet.CreateChannel(b"\2" * 32, 5),
    adnl_packet.ConfirmChannel(b"\2" * 32, b"\3" * 32, 6),
    adnl_packet.Part(b"\4" * 32, 2000, 1024, b"p" * 76),
)
_VALUE = dht_types.signed_value(KEY, b"address", ADDRESSES.boxed(), NOW + 3600)
_MEMBERS = dht_types.overlay_value(BAG, [_member()], NOW + 3600)
_DHT_NODE = dht_types.DhtNode.create(KEY, ADDRESSES, NOW)
_ENTRY = PackEntry(Inode(7), 3, "a/b.txt", 0o100644, NOW, 10, (PackRange(0, 10, 0, bytes(32)),))
_MANIFEST = PackManifest("2026-01-01T00:00:00Z", 10, (_ENTRY,))
_STATE = storage_tl.State(True, False)

TARGETS: dict[str, Target] = {
    "adnl-contents": Target(_contents, (_packet(*_MESSAGES[:2]), _packet(_MESSAGES[4]), _packet(*_MESSAGES))),
    "adnl-message": Target(adnl_packet.parse_message, tuple(adnl_packet.pack_message(m) for m in _MESSAGES)),
    "address-list": Target(AddressList.parse, (ADDRESSES.boxed(),)),
    "rldp": Target(
        rldp2.parse,
        (
            rldp2.pack_confirm(bytes(32), 0, 5, 31, 6),
            rldp2.pack_complete(bytes(32), 1),
            *(part for run in rldp2.PartSender(bytes(32), 0, 900, b"d" * 900).emit(3) for part in run.messages()),
        ),
    ),
    "dht-query": Target(
        _dht_query,
        (
            dht_wire.pack_query(dht_wire.Store(_VALUE), _DHT_NODE),
            dht_wire.pack_query(dht_wire.Store(_MEMBERS)),
            dht_wire.pack_query(dht_wire.FindValue(bytes(32), 6)),
            dht_wire.pack_query(dht_wire.Ping(1)),
            dht_wire.pack_query(dht_wire.GetSignedAddressList()),
        ),
    ),
    "dht-answer": Target(
        _dht_answer,
        (
            dht_wire.pack_nodes([_DHT_NODE]),
            _DHT_NODE.boxed(),
            tl.Writer(tl.DHT_VALUE_FOUND).u32(tl.DHT_VALUE).raw(_MEMBERS.bare()).done(),
        ),
    ),
    "overlay": Target(
        lambda data: (overlay.unwrap(data), overlay.parse_get_random_peers(overlay.unwrap(data)[1])),
        (overlay.wrap(overlay.overlay_id(BAG), overlay.pack_get_random_peers([_member()])),),
    ),
    "overlay-nodes": Target(overlay.parse_nodes, (overlay.pack_nodes([_member()]),)),
    "storage-query": Target(
        storage_tl.parse_query,
        (
            storage_tl.pack_ping(7),
            storage_tl.pack_get_piece(9),
            storage_tl.pack_add_update(1, 2, storage_tl.UpdateInit(b"\3", 0, _STATE)),
            storage_tl.pack_add_update(1, 3, storage_tl.UpdateHavePieces((5, 6))),
        ),
    ),
    "storage-piece": Target(storage_tl.parse_piece, (storage_tl.pack_piece(TREE.proof(2), PIECES[2]),)),
    "storage-info": Target(storage_tl.parse_torrent_info, (storage_tl.pack_torrent_info(INFO.to_boc()),)),
    "piece-proof": Target(lambda data: verify_proof(INFO, 2, data), (TREE.proof(2),)),
    "torrent-info": Target(TorrentInfo.parse, (INFO.to_boc(),)),
    "bag-header": Target(_header, (HEADER.to_bytes(),)),
    "boc": Target(parse_boc, (INFO.to_boc(), TREE.proof(1), to_boc(Cell(b"x", (Cell(b"y"),))))),
    "chain-cells": Target(cells_from_boc, (INFO.to_boc(), TREE.proof(1))),
    "provider-request": Target(
        provider_tl.parse_request,
        tuple(
            map(
                provider_tl.pack_request,
                (
                    provider_tl.RatesRequest(5),
                    provider_tl.StorageRequest(bytes(32), 9),
                    provider_tl.AdnlProofRequest(bytes(32)),
                ),
            )
        ),
    ),
    "provider-rates": Target(
        provider_tl.parse_rates,
        (provider_tl.pack_rates(Rates(True, NanoTon(5), NanoTon(1), 1 << 30, 86_400, 864_000)),),
    ),
    "provider-status": Target(
        provider_tl.parse_storage,
        (provider_tl.pack_storage(StorageStatus("active", "", 1 << 20, TREE.proof(1))),),
    ),
    "provider-proof": Target(
        lambda data: provider_tl.parse_adnl_proof(data, PROVIDER),
        (provider_tl.pack_adnl_proof(KEY.public_key, KEY.sign(provider_tl.adnl_proof_message(PROVIDER))),),
    ),
    "global-config": Target(
        parse_global_config, (b'{"dht": {"static_nodes": {"nodes": []}}, "liteservers": []}',), (BadData, UsageError)
    ),
    "pack-manifest": Target(PackManifest.parse, (_MANIFEST.to_bytes(),)),
    "control": Target(control_wire.decode, (b'{"id": 1, "method": "status", "params": {}}',)),
    "tonutils-http": Target(
        daemons.http_answer,
        (
            b'HTTP/1.1 200 OK\r\nContent-Length: 34\r\n\r\n{"bags": [{"bag_id": "00112233"}]}',
            b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n3\r\n 1}\r\n0\r\n\r\n',
        ),
        (BadData, NotRunning, Refused, UsageError),
    ),
    "tonutils-json": Target(
        daemons.json_answer,
        (b'\0{"bag_id": "00112233", "bags": [{"bag_id": "00112233"}]}', b'\0{"bag_id": "00", "bags": null}'),
        (BadData, Refused, UsageError),
    ),
    "storage-daemon": Target(
        daemons.control_port,
        tuple(daemons.conversation(daemons.torrent(flags)) for flags in (0, 3)),
        (BadData, Refused, trio.BrokenResourceError),
    ),
    "adnl-tcp": Target(daemons.tcp_frames, tuple(daemons.frame(payload) for payload in (b"", b"payload" * 40))),
    "lanes": Target(channel.lanes, channel.LANE_SEEDS),
    "adnl-peer": Target(channel.peer, channel.PEER_SEEDS),
}
