"""Wallets: 24 words to a key, a key to an address, messages to a signed external.

v4r2 for users, v3r2 for providers (reference contracts section 8). At most four messages in one external. Signing is
pure; who may sign, and when, is `intents`' business.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..errors import BadData, Refused, UsageError
from ..ids import Address
from . import codes
from .api import AccountState, AccountStatus
from .cells import Builder, Cell, Reader, to_boc
from .messages import Message, external_message, state_init, state_init_address

WALLET_ID: Final = 698983191
MAX_MESSAGES: Final = 4
WORDS: Final = 24
_ITERATIONS: Final = 100_000


class Version(StrEnum):
    V3R2 = "v3r2"
    V4R2 = "v4r2"


_CODES: Final = {Version.V3R2: codes.WALLET_V3R2, Version.V4R2: codes.WALLET_V4R2}


def _word_list() -> list[str]:
    from pytoniq_core.crypto.keys import words

    out: list[str] = words
    return out


def _entropy(words: Sequence[str]) -> bytes:
    return hmac.new(" ".join(words).encode(), b"", hashlib.sha512).digest()


def _is_valid(words: Sequence[str]) -> bool:
    version = hashlib.pbkdf2_hmac("sha512", _entropy(words), b"TON seed version", max(1, _ITERATIONS // 256))
    return version[0] == 0


def new_words() -> list[str]:
    """24 fresh words of the TON scheme (reference contracts section 8). Takes about 0.1 s."""
    known = _word_list()
    while True:
        words = [secrets.choice(known) for _ in range(WORDS)]
        if _is_valid(words):
            return words


def check_words(text: str) -> list[str]:
    """Split and check 24 words that a person typed, any case and spacing. Raises UsageError, never quoting them all."""
    words = text.lower().split()
    if len(words) != WORDS:
        raise UsageError(f"{len(words)} words were given instead of {WORDS}.")
    known = set(_word_list())
    for number, word in enumerate(words, 1):
        if word not in known:
            raise UsageError(f"Word {number} is not in the word list.", hint="Check its spelling.")
    if not _is_valid(words):
        raise UsageError(
            "These words do not belong together.", hint="One of them, or their order, is wrong; passwords are unknown."
        )
    return words


@dataclass(frozen=True)
class SignedExternal:
    """A signed message to the wallet: valid while chain time < `valid_until` and the wallet's seqno is `seqno`."""

    boc: bytes
    hash: bytes
    """Hash of the message cell as we send it; who relays it may put the signed body into another one."""
    seqno: int
    valid_until: int


def _key_state_init(public_key: bytes, version: Version, wallet_id: int) -> Cell:
    data = Builder().uint(0, 32).uint(wallet_id, 32).raw(public_key)
    if version is Version.V4R2:
        data.bit(False)  # no plugins
    return state_init(codes.code(_CODES[version]), data.cell())


def key_address(public_key: bytes, version: Version, wallet_id: int = WALLET_ID) -> Address:
    """Address of the wallet that belongs to a public key."""
    return state_init_address(_key_state_init(public_key, version, wallet_id))


class Wallet:
    """A key and a wallet contract's version. Knows nothing of the chain."""

    def __init__(self, key: Ed25519PrivateKey, version: Version | str = Version.V4R2, wallet_id: int = WALLET_ID):
        self._key = key
        self.version: Final = Version(version)
        self.wallet_id: Final = wallet_id
        self.public_key: Final = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @classmethod
    def from_words(cls, words: Sequence[str], version: Version | str = Version.V4R2) -> Wallet:
        """Raises UsageError when they are not 24 valid words."""
        checked = check_words(" ".join(words))
        seed = hashlib.pbkdf2_hmac("sha512", _entropy(checked), b"TON default seed", _ITERATIONS)
        return cls.from_seed(seed[:32], version)

    @classmethod
    def from_seed(cls, seed: bytes, version: Version | str = Version.V3R2) -> Wallet:
        """From a 32-byte Ed25519 seed."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed), version)

    def __repr__(self) -> str:
        return f"Wallet({self.version}, {self.address})"

    @cached_property
    def state_init(self) -> Cell:
        return _key_state_init(self.public_key, self.version, self.wallet_id)

    @cached_property
    def address(self) -> Address:
        return state_init_address(self.state_init)

    def seqno(self, state: AccountState) -> int:
        """Sequence number that the next external must carry, from the proved account.

        Raises Refused when the account is frozen or runs another contract, BadData when its data is malformed.
        """
        if state.address != self.address:
            raise ValueError("the state of another account")
        if state.status in (AccountStatus.NONE, AccountStatus.UNINIT):
            return 0
        if state.status is AccountStatus.FROZEN or state.code_hash != _CODES[self.version]:
            raise Refused(
                f"The wallet {self.address} is {state.status} and cannot be used as {self.version}.",
                hint="It has run another contract, or its rent is unpaid.",
            )
        if state.data is None:
            raise BadData("A wallet has no data.")
        return Reader(state.data).uint(32)

    def sign_bytes(self, message: bytes) -> bytes:
        """Ed25519 signature with the wallet's key (providers sign storage proofs with it)."""
        return self._key.sign(message)

    def sign(self, seqno: int, valid_until: int, messages: Sequence[Message]) -> SignedExternal:
        """A signed external that sends 0 to 4 messages in order; carries the StateInit when seqno is 0.

        `valid_until` is chain time in seconds. Raises ValueError when there are more messages.
        """
        if len(messages) > MAX_MESSAGES:
            raise ValueError(f"a wallet sends at most {MAX_MESSAGES} messages at once")
        order = Builder().uint(self.wallet_id, 32).uint(valid_until, 32).uint(seqno, 32)
        if self.version is Version.V4R2:
            order.uint(0, 8)
        for message in messages:
            order.uint(message.mode, 8).ref(message.cell())
        unsigned = order.cell()
        body = Builder().raw(self._key.sign(unsigned.hash)).append(unsigned).cell()
        cell = external_message(self.address, body, self.state_init if seqno == 0 else None)
        return SignedExternal(to_boc(cell), cell.hash, seqno, valid_until)
