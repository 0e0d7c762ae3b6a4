"""What a provider would take for a bag. Terms follow reference contracts 6.1; amounts are nanoTON, spans seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..chain.storage2 import MIN_BOUNTY, bounty, rate_for_bounty
from ..errors import Refused
from ..ids import NanoTon, ProviderKey
from ..network.api import PeerNet, Rates
from ..policy import ReplicaPolicy

SPAN_FACTOR: Final = 8
"""How many times shorter or longer than wanted a span may be. Each one earns the minimum bounty at least, so that a
provider which insists on a span of a second would earn it every second; in one of a century it need not prove."""
BOUNTY_FACTOR: Final = 2
"""How many minimum bounties a provider may insist on for a span, where that is more than the policy's price."""


@dataclass(frozen=True)
class Quote:
    """Terms that a provider accepts for one bag of `size` bytes."""

    provider: ProviderKey
    size: int
    asked_rate: NanoTon
    """What it asks, per MB and day."""
    rate: NanoTon
    """What goes into the contract: the asked rate, or more where a full span earns less than the minimum bounty."""
    span: int
    space_available: int

    @property
    def bounty(self) -> NanoTon:
        """What one proof of a full span earns."""
        return bounty(self.size, self.rate, self.span)

    @property
    def per_day(self) -> int:
        """Cost of a day, nanoTON (the order of quotes)."""
        return self.size * self.rate >> 20


def terms(provider: ProviderKey, rates: Rates, size: int, policy: ReplicaPolicy) -> Quote:
    """Turn asked rates into terms. Raises Refused when the provider does not want the bag or asks too much."""
    name = provider.hex()[:12]
    if not rates.available or rates.space_available < size:
        raise Refused(f"Provider {name} has no room for {size} bytes.")
    if not 0 < rates.min_span <= rates.max_span:
        raise Refused(f"Provider {name} offers no usable span ({rates.min_span} to {rates.max_span} s).")
    if rates.rate_per_mb_day > policy.max_rate:
        raise Refused(f"Provider {name} asks {rates.rate_per_mb_day} n per MB and day, over the policy's limit.")
    span = min(max(policy.span, rates.min_span), rates.max_span)
    if span * SPAN_FACTOR < policy.span or span > policy.span * SPAN_FACTOR:
        raise Refused(f"Provider {name} insists on a span of {span} s; {policy.span} s are wanted.")
    floor = rate_for_bounty(size, span, max(MIN_BOUNTY, rates.min_bounty))
    if rates.min_bounty > BOUNTY_FACTOR * MIN_BOUNTY and floor > policy.max_rate:
        raise Refused(f"Provider {name} asks {rates.min_bounty} n for each span, over the policy's limit.")
    rate = NanoTon(max(1, rates.rate_per_mb_day, floor))
    return Quote(provider, size, rates.rate_per_mb_day, rate, span, rates.space_available)


async def quote(
    net: PeerNet, provider: ProviderKey, size: int, policy: ReplicaPolicy, *, timeout: float = 10.0
) -> Quote:
    """Ask a provider. Raises PeerTimeout, PeerUnreachable, BadPacket, Refused."""
    return terms(provider, await net.provider_rates(provider, size, timeout=timeout), size, policy)
