"""TON: accounts, wallets, contracts, and the journal that keeps every coin accounted for.

`api` is the seam; `lite` is the real thing behind it. `wallet` and `storage2` are pure. `intents` is the only
module that lets coins move.
"""

from .address import friendly, parse_address
from .api import AccountState, AccountStatus, Chain, ChainMessage, MessageKind, Transaction
from .messages import Message, comment
from .wallet import SignedExternal, Wallet, new_words

__all__ = [
    "AccountState",
    "AccountStatus",
    "Chain",
    "ChainMessage",
    "Message",
    "MessageKind",
    "SignedExternal",
    "Transaction",
    "Wallet",
    "comment",
    "friendly",
    "new_words",
    "parse_address",
]
