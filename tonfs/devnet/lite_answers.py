"""What the lite server answers: one function of the chain for each function of TL (reference devnet 2.2).

The ledger makes every proof; here is only which bytes go where, and which error has which number.
"""

from __future__ import annotations

from typing import Final

from ..errors import BadData, BlockUnknown, ExternalRefused, TonfsError, UsageError
from . import lite_tl as lt
from .chain_api import BlockId, DevnetChain

NOT_ACCEPTED: Final = 0
MALFORMED: Final = -400
BLOCK_NOT_FOUND: Final = 651
TIMED_OUT: Final = 652
INTERNAL: Final = -500
MAX_TRANSACTIONS: Final = 16
"""Most transactions of an account in one answer; clients page."""
MAX_BLOCK_TRANSACTIONS: Final = 256


def error_of(exc: TonfsError) -> bytes:
    """A liteServer.error for what the chain or the parser raised."""
    if isinstance(exc, ExternalRefused):
        return lt.error(NOT_ACCEPTED, exc.message)
    if isinstance(exc, BlockUnknown):
        return lt.error(BLOCK_NOT_FOUND, exc.message)
    if isinstance(exc, BadData | UsageError):
        return lt.error(MALFORMED, exc.message)
    return lt.error(INTERNAL, exc.message)


def answer(chain: DevnetChain, function: lt.Function) -> bytes:
    """The boxed answer. Raises what the chain raises; see `error_of`."""
    match function:
        case lt.GetMasterchainInfo():
            return lt.masterchain_info(chain.last.master, chain.zero_state)
        case lt.GetMasterchainInfoExt(mode):
            last = chain.last
            return lt.masterchain_info_ext(mode, last.master, last.gen_utime, chain.now(), chain.zero_state)
        case lt.GetTime():
            return lt.current_time(chain.now())
        case lt.GetVersion():
            return lt.version(chain.now())
        case lt.SendMessage(body):
            chain.inject_external(body)
            return lt.send_msg_status()
        case lt.GetAccountState() | lt.RunSmcMethod() | lt.GetTransactions() | lt.GetOneTransaction():
            return _about_account(chain, function)
        case _:
            return _about_block(chain, function)


def _about_account(
    chain: DevnetChain, function: lt.GetAccountState | lt.RunSmcMethod | lt.GetTransactions | lt.GetOneTransaction
) -> bytes:
    match function:
        case lt.GetAccountState(block, account):
            return lt.account_state(chain.account_answer(block, account))
        case lt.RunSmcMethod(mode, block, account, method_id, params):
            return lt.run_method_result(mode, chain.run_method_answer(block, account, method_id, params))
        case lt.GetTransactions(count, account, logical_time, hash_):
            count = min(count, MAX_TRANSACTIONS)
            return lt.transaction_list(chain.transactions_answer(account, logical_time, hash_, count))
        case lt.GetOneTransaction(block, account, logical_time):
            return lt.transaction_info(chain.one_transaction_answer(block, account, logical_time))


def _about_block(chain: DevnetChain, function: lt.Function) -> bytes:
    match function:
        case lt.GetBlock(block):
            return lt.block_data(chain.block_answer(block))
        case lt.GetBlockHeader(block, mode):
            return lt.block_header(mode, chain.header_answer(block))
        case lt.LookupBlock(mode, workchain, shard, seqno, logical_time, utime):
            found = chain.lookup_answer(workchain, shard, seqno=seqno, lt=logical_time, utime=utime)
            return lt.block_header(mode, found)
        case lt.GetAllShardsInfo(block):
            return lt.all_shards_info(chain.all_shards_answer(block))
        case lt.GetShardInfo(block, workchain, shard, exact):
            return lt.shard_info(chain.shard_info_answer(block, workchain, shard, exact))
        case lt.ListBlockTransactions(block, mode, count, after, ext):
            count = min(count, MAX_BLOCK_TRANSACTIONS)
            if ext:
                whole = chain.block_transactions_ext_answer(block, count, after, function.reverse)
                return lt.block_transactions_ext(mode, whole)
            return lt.block_transactions(mode, chain.block_transactions_answer(block, count, after, function.reverse))
        case lt.GetConfig(mode, block, params):
            return lt.config_info(mode, chain.config_answer(block, params))
        case lt.GetLibraries():
            return lt.no_libraries()
        case lt.GetBlockProof(_, known, target):
            return _block_proof(chain, known, target)
        case lt.GetShardBlockProof(block):
            return _shard_block_proof(chain, block)
    raise AssertionError(f"no answer for {type(function).__name__}")


def _block_proof(chain: DevnetChain, known: BlockId, target: BlockId | None) -> bytes:
    """Without validators there are no signatures to show, so only a block's proof of itself exists (devnet 3.7)."""
    target = target or chain.last.master
    chain.header_answer(target)
    if known != target:
        raise UsageError("This chain has no validators: ask without signature checks (trust level 1, policy Fast).")
    return lt.complete_block_proof(known, target)


def _shard_block_proof(chain: DevnetChain, block: BlockId) -> bytes:
    """Masterchain block n lists shard block n, so one link is enough."""
    pair = chain.block(block.seqno)
    if pair.shard != block:
        raise BlockUnknown(f"There is no shard block {block.seqno} with these hashes.")
    shards = chain.all_shards_answer(pair.master)
    return lt.shard_block_proof(pair.master, [(block, shards.proof)])
