"""What a provider answers to clients, over RLDP and plain ADNL (reference contracts section 5)."""

from __future__ import annotations

from ..errors import BadPacket
from ..ids import Address
from ..log import get_logger
from ..network import provider_tl as wire
from ..network.api import AdnlEndpoint, Peer
from .keeper import Keeper
from .rules import rates

log = get_logger(__name__)


class Answers:
    """`handle` is the query handler of the provider's ADNL identity; `storage` is the identity that serves bags."""

    def __init__(self, keeper: Keeper, storage: AdnlEndpoint) -> None:
        self._keeper = keeper
        self._storage = storage

    async def handle(self, peer: Peer, data: bytes, by_rldp: bool) -> bytes | None:
        """The answer, or None for what is no question to a provider, or is about an unknown contract."""
        try:
            request = wire.parse_request(data)
        except BadPacket as exc:
            log.debug("bad query", peer=peer.id, reason=exc.message)
            return None
        keeper = self._keeper
        match request:
            case wire.RatesRequest(size):
                return wire.pack_rates(rates(keeper.config, size, keeper.space_left()))
            case wire.StorageRequest(contract, byte_to_proof):
                return wire.pack_storage(await keeper.request(_address(contract), byte_to_proof))
            case wire.AdnlProofRequest(contract):
                if not keeper.knows(_address(contract)):
                    return None
                signature = self._storage.sign(wire.adnl_proof_message(keeper.key))
                return wire.pack_adnl_proof(self._storage.public_key, signature)


def _address(contract: bytes) -> Address:
    return Address(f"0:{contract.hex()}")
