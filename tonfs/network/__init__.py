"""The TON storage network: ADNL over UDP, RLDP2, DHT, overlays and storage sessions.

`api` is the seam both ways and is what this package exports; importing it loads no cryptography. The parts, from the
wire up:

* `tl`, `address`, `keys`: TL objects, address lists, Ed25519 identities
* `adnl_packet`, `adnl_channel`, `adnl_peer`, `adnl_hub`: ADNL as state machines without I/O
* `raptor`, `fec`, `rldp2`, `rldp_transfer`, `congestion`, `rldp_link`: RLDP2, likewise
* `udp`, `node`: the socket and the trio driver; `AdnlNode` is what programs start
* `dht_*`, `overlay`, `provider_*`: finding nodes, peers and providers
* `storage_*`: sessions, downloads, seeding and audits; `peer_*`: all of it in a process of its own
"""

from __future__ import annotations

from .api import (
    AdnlEndpoint,
    FetchReport,
    Peer,
    PeerNet,
    PieceAnswer,
    PieceOutcome,
    QueryHandler,
    Rates,
    StorageStatus,
    UdpAddress,
)

__all__ = [
    "AdnlEndpoint",
    "FetchReport",
    "Peer",
    "PeerNet",
    "PieceAnswer",
    "PieceOutcome",
    "QueryHandler",
    "Rates",
    "StorageStatus",
    "UdpAddress",
]
