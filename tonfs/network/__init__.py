"""Packets: ADNL, RLDP2, DHT, overlays, the storage peer. Protocol cores without I/O, thin trio drivers.

What other rooms use, by module (nothing is imported here, so that `network.api` alone costs nothing):

| module | names |
| --- | --- |
| `api` | `PeerNet`, `AdnlEndpoint`, `Peer` and their values: the seam |
| `node`, `keys` | `AdnlNode`: a socket with identities; `KeyPair`, `load_or_create`, `short_id` |
| `dht_client`, `dht_server`, `global_config` | `DhtClient`, `DhtServer`, `load_global_config`, `emit_dht` |
| `provider_link`, `provider_tl` | `ProviderLink`: questions to providers; the messages for those who answer them |
| `storage_node`, `piece_source` | `StorageNode`: `PeerNet` in process; `PieceSource`: where served pieces come from |
| `peer_process`, `peer_client` | the same in a process of its own; `PeerClient`: `PeerNet` over its socket |

Below these, from the wire up: `tl`, `address`; `adnl_packet`, `adnl_channel`, `adnl_memory`, `adnl_peer`, `adnl_hub`
(ADNL as state machines without I/O); `raptor`, `fec`, `rldp2`, `rldp_transfer`, `congestion`, `rldp_link` (RLDP2,
likewise); `udp` (the socket).
"""
