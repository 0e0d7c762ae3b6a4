"""The treasurer: the only code that lets coins move. Intent first, then a signature, then the network, then the truth.

    execute: budget -> intent (durable) -> balance -> signed external (durable) -> sent -> landed | dead -> followed

One external at a time per wallet; intents that wait meanwhile travel together in the next (at most four messages).
"Sent" means nothing: an intent is confirmed when the wallet's transaction is found by the signed body (anybody may put
that into another envelope, with another hash), the contract's transaction by the hash of the message out, its code and
actions ended well, and what it returned arrived.

An external is dead only when it can never run any more: chain time at the wallet reached `valid_until` with the
sequence number still waiting, or another message took that number. Only then are its intents signed again. So whatever
dies when: nothing is paid twice, and `recover` takes up whatever is open.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import trio

from ..clock import Clock
from ..errors import BadProof, ChainUnavailable, ExternalRefused, InsufficientCoins, IntentFailed, TimedOut, TonfsError
from ..ids import Address, BagId, NanoTon, format_ton
from ..log import get_logger
from .api import AccountState, AccountStatus, Chain, ChainMessage, MessageKind, Transaction
from .cells import EMPTY, one_cell
from .journal import CLOSED, External, Intent, IntentState, Journal, create_tables
from .messages import Message, parse_message
from .wallet import MAX_MESSAGES, Wallet

__all__ = ["IntentResult", "IntentState", "Treasurer", "create_tables"]

T = TypeVar("T")

log = get_logger(__name__)

LIFE: Final = 60
"""Chain seconds for which a signed external stays valid."""
MOST_ATTEMPTS: Final = 5
STALE_AFTER: Final = 3600
"""An intent that was planned this many chain seconds ago and never signed is given up by `recover`."""
TRACE_FOR: Final = 600
"""Chain seconds for which the trace of a message is looked for at a receiver that does not exist."""
BEHIND_FOR: Final = 600
"""Seconds for which a lite server may lag behind what we have seen before."""
FEES: Final = NanoTon(10_000_000)
"""What the wallet must hold beyond the amounts, for itself and again for each message: gas and forwarding."""
_PAUSES: Final = (0.5, 1.0, 2.0, 5.0, 10.0)

_TRANSIENT: Final = (ChainUnavailable, BadProof, TimedOut)

BudgetCheck = Callable[[int, str], None]
"""(amount, reason): raises Refused when the budget does not allow it. Asked before an intent exists."""


@dataclass(frozen=True)
class IntentResult:
    """How an intent ended. `returned` is what came back to the wallet because of it: change, refunds, bounces."""

    id: int
    kind: str
    contract: Address
    amount: NanoTon
    state: IntentState
    exit_code: int | None
    action_code: int | None
    returned: NanoTon
    detail: str

    @property
    def confirmed(self) -> bool:
        return self.state is IntentState.CONFIRMED

    def check(self) -> IntentResult:
        """Itself when confirmed. Raises IntentFailed otherwise."""
        if not self.confirmed:
            raise IntentFailed(f"{self.kind} for {self.contract} {self.state}: {self.detail}.")
        return self


def _result(intent: Intent) -> IntentResult:
    return IntentResult(
        intent.id, intent.kind, intent.contract, intent.amount, intent.state, intent.exit_code, intent.action_code,
        intent.returned, intent.detail,
    )  # fmt: skip


@dataclass(frozen=True)
class _Delivery:
    """What became of one message at its receiver, and the coins that came back from there."""

    good: bool
    detail: str
    exit_code: int | None = None
    action_code: int | None = None
    returned: int = 0


def _judge(transaction: Transaction, returned: int) -> _Delivery:
    message = transaction.in_message
    # A plain transfer without the bounce flag is credited whether code runs or not.
    plain = message is not None and not message.bounce and message.op in (None, 0)
    credited = plain and transaction.skipped != ""
    good, detail = transaction.succeeded or credited, ""
    if not good and transaction.skipped:
        detail = f"the account {transaction.account} did not run ({transaction.skipped})"
    elif not good:
        detail = f"the contract refused (exit code {transaction.exit_code}, action code {transaction.action_code})"
    return _Delivery(good, detail, transaction.exit_code, transaction.action_code, returned)


class Treasurer:
    """One per wallet and process. `execute` is safe from many tasks."""

    def __init__(
        self,
        chain: Chain,
        wallet: Wallet,
        conn: sqlite3.Connection,
        clock: Clock,
        *,
        budget_check: BudgetCheck | None = None,
        life: int = LIFE,
    ) -> None:
        """`conn` is agent.db, used from this thread only and never inside an open transaction."""
        self._chain = chain
        self._wallet = wallet
        self._journal = Journal(conn, wallet.address)
        self._clock = clock
        self._budget_check = budget_check
        self._life = life
        self._lock = trio.Lock()

    @property
    def address(self) -> Address:
        return self._wallet.address

    def committed(self) -> NanoTon:
        """Coins of all intents that are not closed."""
        return self._journal.committed()

    def open_intents(self) -> list[Intent]:
        return self._journal.open_intents()

    def check_not_behind(self, state: AccountState) -> None:
        """Raises ChainUnavailable for a state from before the last intent for that account that we saw confirmed.

        Blocks never go back within a process; after a restart a lite server that lags might have us pay again. Only for
        a while: an account may be gone, and a devnet set back.
        """
        known = self._journal.last_lt(state.address, self._clock.now() - BEHIND_FOR)
        if known and state.last_lt <= known:
            raise ChainUnavailable(f"The lite server does not know yet what happened to {state.address}.")

    async def execute(
        self,
        kind: str,
        contract: Address,
        messages: Sequence[Message],
        reason: str,
        amount: int | None = None,
        *,
        bag_id: BagId | None = None,
        key: str | None = None,
    ) -> IntentResult:
        """Carry out one intent (1 to 4 messages) and return how it ended, which may take some blocks.

        `key` names the intent: called again with the same key, also after a restart, it never pays again but returns
        how the first one ended. `amount` defaults to the sum of the messages.

        An error means that nothing was signed and nothing will be paid: Refused (budget, or the wallet cannot be
        used), InsufficientCoins, ChainUnavailable, BadProof. Once signed it keeps at it until the truth is known;
        cancelled then, the intent stays open, and the next `execute` or `recover` finds out.
        """
        if not 1 <= len(messages) <= MAX_MESSAGES:
            raise ValueError(f"an intent has 1 to {MAX_MESSAGES} messages")
        known = None if key is None else self._journal.by_key(key)
        if known is None:
            total = sum(m.amount for m in messages) if amount is None else amount
            if self._budget_check is not None:
                self._budget_check(total, reason)
            now = await self._chain.now()
            intent_id = self._journal.plan(
                kind, contract, messages, reason, total, bag_id=bag_id, key=key, planned_at=now,
                created=self._clock.now(),
            )  # fmt: skip
            log.info("intent", id=intent_id, kind=kind, contract=contract, amount=total, reason=reason)
        else:
            intent_id = known.id
        try:
            return await self._drive(intent_id, patient=True)
        except (TonfsError, trio.Cancelled) as exc:
            self._give_up(intent_id, exc)
            raise

    async def recover(self) -> list[IntentResult]:
        """Take up every open intent, also those of a process that was killed; how each ended, oldest first.

        Raises ChainUnavailable or BadProof when the truth cannot be known now: call it again later. Planned ones that
        have become stale, or for which the coins are missing, are closed without being paid.
        """
        out = []
        for intent in self._journal.open_intents():
            now = await self._chain.now()
            # Others may have signed it since the list was made.
            if self._journal.intent(intent.id).state is IntentState.PLANNED and self._stale(intent, now):
                self._close(intent.id, IntentState.EXPIRED, "planned too long ago")
            try:
                out.append(await self._drive(intent.id, patient=False))
            except InsufficientCoins as exc:
                self._give_up(intent.id, exc)
                out.append(_result(self._journal.intent(intent.id)))
        return out

    def _give_up(self, intent_id: int, why: BaseException) -> None:
        """Give up an intent that was never signed."""
        if self._journal.intent(intent_id).state is IntentState.PLANNED:
            detail = why.message if isinstance(why, TonfsError) else "cancelled before it was signed"
            self._close(intent_id, IntentState.FAILED, detail)

    def _close(self, intent_id: int, state: IntentState, detail: str) -> None:
        self._journal.close(intent_id, state, self._clock.now(), detail)

    # One intent from wherever it is to its end.

    async def _drive(self, intent_id: int, *, patient: bool) -> IntentResult:
        while True:
            intent = self._journal.intent(intent_id)
            if intent.state in CLOSED:
                return _result(intent)
            external = None if intent.external is None else self._journal.external(intent.external)
            if external is not None and external.state == "landed":
                await self._repeat(partial(self._settle, intent), patient)
                continue
            async with self._lock:
                # The task that held the lock before may have done it.
                if self._journal.intent(intent_id).state is intent.state:
                    await self._turn(intent_id, patient)

    async def _repeat(self, step: Callable[[], Awaitable[T]], patient: bool) -> T:
        """Run a step until the chain answers (or, not patient, raise what keeps it from answering)."""
        attempt = 0
        while True:
            try:
                return await step()
            except _TRANSIENT as exc:
                if not patient:
                    raise
                log.info("the chain does not answer, trying again", reason=exc.message)
                await trio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
                attempt += 1

    async def _turn(self, intent_id: int, patient: bool) -> None:
        """Under the lock: bring the external in flight to its end, or sign the next one."""
        external = self._journal.in_flight()
        if external is None:
            external = await self._sign_next(intent_id)
        await self._repeat(partial(self._land, external), patient)

    async def _sign_next(self, intent_id: int) -> External:
        """Sign this planned intent, and others that fit beside it. Raises when it cannot be paid for."""
        state = await self._chain.account(self._wallet.address)
        seqno = self._wallet.seqno(state)
        mine = self._journal.intent(intent_id)
        batch, messages = [mine], list(mine.messages)
        need = mine.amount + FEES * (1 + len(messages))
        if need > state.balance:
            raise InsufficientCoins(
                f"The wallet holds {format_ton(state.balance)} TON; {mine.kind} needs {format_ton(need)} TON.",
                hint="Send coins to the wallet's address ('tonfs wallet show').",
            )
        for other in self._journal.planned():
            cost = other.amount + FEES * len(other.messages)
            fits = len(messages) + len(other.messages) <= MAX_MESSAGES and need + cost <= state.balance
            if other.id != intent_id and fits and not self._stale(other, state.now):
                batch.append(other)
                messages += other.messages
                need += cost
        batch.sort(key=lambda intent: intent.id)
        messages = [message for intent in batch for message in intent.messages]
        signed = self._wallet.sign(seqno, state.now + self._life, messages)
        self._journal.sign(batch, signed, state.last_lt, self._clock.now())
        external = self._journal.in_flight()
        assert external is not None
        log.info("signed", external=external.id, seqno=seqno, intents=len(batch), messages=len(messages))
        return external

    def _stale(self, intent: Intent, now: int) -> bool:
        return now - intent.planned_at > STALE_AFTER

    async def _land(self, external: External) -> None:
        """Send until the external has run or can never run."""
        while True:
            state = await self._chain.account(self._wallet.address)
            overtaken = self._wallet.seqno(state) > external.seqno
            if overtaken or state.now >= external.valid_until:
                # From this very state back: another server, asked for the newest, might lag behind it.
                start = (state.last_lt, state.last_hash)
                transaction = await self._find(state.address, _carries(external), external.from_lt, start)
                if transaction is not None:
                    self._journal.landed(external, transaction.lt, transaction.hash)
                elif overtaken:
                    self._bury(external, "another message of the wallet took its place")
                else:
                    self._bury(external, "it was not taken into a block in time")
                return
            try:
                await self._chain.send_boc(external.boc)
            except ExternalRefused as exc:
                # Perhaps it has just run, perhaps not; the chain will tell, not this server.
                log.debug("external refused", external=external.id, reason=exc.message)
            else:
                self._journal.sent(external)
            await self._chain.wait_block()

    def _bury(self, external: External, why: str) -> None:
        log.info("external is dead", external=external.id, reason=why)
        self._journal.dead(external, why, MOST_ATTEMPTS, self._clock.now())

    # The truth about an external that ran.

    async def _find(
        self, account: Address, wanted: Callable[[ChainMessage], bool], after_lt: int,
        start: tuple[int, bytes] | None = None,
    ) -> Transaction | None:  # fmt: skip
        """The transaction whose incoming message is wanted, among all later than `after_lt`; looked for from `start`,
        or from the newest that a server knows, back."""
        before = start
        while True:
            page = await self._chain.transactions(account, 16, before)
            for transaction in page:
                if transaction.lt <= after_lt:
                    return None
                if transaction.in_message is not None and wanted(transaction.in_message):
                    return transaction
            if not page or page[-1].prev_lt <= after_lt:
                return None
            before = (page[-1].prev_lt, page[-1].prev_hash)

    async def _arrived(self, message: ChainMessage) -> Transaction:
        """The transaction of our wallet that took a message; it comes with some block."""
        while True:
            found = await self._find(self._wallet.address, _is(message), message.created_lt)
            if found is not None:
                return found
            await self._chain.wait_block()

    async def _deliver(self, message: ChainMessage, sent_at: int) -> _Delivery:
        """Follow a message to its receiver, and what that sends to us until it has arrived."""
        assert message.destination is not None
        while True:
            found = await self._find(message.destination, _is(message), message.created_lt)
            if found is not None:
                break
            state = await self._chain.account(message.destination)
            if state.status is AccountStatus.NONE:
                # An account that is gone has no history any more; what it sent before is in ours.
                answer = await self._answer_of(message)
                if answer is not None:
                    detail = f"there is no contract at {message.destination}" if answer.bounced else ""
                    return _Delivery(not answer.bounced, detail, returned=answer.value)
                if state.now > sent_at + TRACE_FOR:
                    return _Delivery(False, f"the coins left the wallet, but {message.destination} shows no trace")
            await self._chain.wait_block()
        returned = 0
        if found.account != self._wallet.address:
            for answer in found.out_messages:
                if answer.destination == self._wallet.address:
                    await self._arrived(answer)
                    returned += answer.value
        return _judge(found, returned)

    async def _answer_of(self, message: ChainMessage) -> ChainMessage | None:
        """What the receiver of a message sent to our wallet after it."""
        before: tuple[int, bytes] | None = None
        while True:
            page = await self._chain.transactions(self._wallet.address, 16, before)
            for transaction in page:
                answer = transaction.in_message
                if (
                    answer is not None
                    and answer.source == message.destination
                    and (answer.created_lt > message.created_lt)
                ):
                    return answer
            if not page or page[-1].prev_lt <= message.created_lt:
                return None
            before = (page[-1].prev_lt, page[-1].prev_hash)

    async def _settle(self, intent: Intent) -> None:
        """Close an intent whose external has run, by what its messages did."""
        assert intent.external is not None
        external = self._journal.external(intent.external)
        [run] = await self._chain.transactions(self._wallet.address, 1, (external.lt, external.tx_hash))
        sent = _match(self._journal.intents_of(external.id), run.out_messages)[intent.id]
        done = [await self._deliver(message, run.now) for message in sent if message is not None]
        verdict = next((d for d in done if not d.good), done[-1] if done else None)
        state, detail = IntentState.CONFIRMED, ""
        if verdict is None or len(done) < len(sent):
            state, detail = IntentState.FAILED, "the wallet did not send all messages (not enough coins)"
        elif not verdict.good:
            state, detail = IntentState.FAILED, verdict.detail
        self._journal.close(
            intent.id, state, self._clock.now(), detail, exit_code=verdict.exit_code if verdict else None,
            action_code=verdict.action_code if verdict else None, returned=sum(d.returned for d in done),
        )  # fmt: skip
        log.info("intent closed", id=intent.id, kind=intent.kind, state=str(state), detail=detail)


def _is(message: ChainMessage) -> Callable[[ChainMessage], bool]:
    """Is it this message, as it arrives at the other side?"""
    return lambda arrived: arrived.hash == message.hash


def _carries(external: External) -> Callable[[ChainMessage], bool]:
    """Did the wallet take what we signed? Only the body is signed; who relays it may change the envelope."""
    body = parse_message(one_cell(external.boc)).body.hash
    return lambda arrived: arrived.kind is MessageKind.EXTERNAL_IN and arrived.body.hash == body


def _match(intents: Sequence[Intent], out: Sequence[ChainMessage]) -> dict[int, list[ChainMessage | None]]:
    """Intent id -> for each of its messages the one that the wallet sent, or None: mode 3 skips what it cannot pay,
    the rest keeps its order."""
    found: dict[int, list[ChainMessage | None]] = {}
    rest = list(out)
    for intent in intents:
        found[intent.id] = []
        for wanted in intent.messages:
            body = (EMPTY if wanted.body is None else wanted.body).hash
            hits = [
                i
                for i, m in enumerate(rest)
                if m.destination == wanted.to and m.value == wanted.amount and m.body.hash == body
            ]
            if hits:
                found[intent.id].append(rest[hits[0]])
                del rest[: hits[0] + 1]
            else:
                found[intent.id].append(None)
    return found
