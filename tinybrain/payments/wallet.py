"""The hot wallet: sends transactions, pays their gas, and never leaves a gap in its nonces.

One wallet belongs to one process; if a second one takes its nonces by mistake, both go on with
later ones. A signed transaction is recorded before it is sent, so that after a crash the same
bytes can be sent again. Knows nothing of x402 payments or of the ledger.
Source: EIP-1559.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable
from contextlib import suppress
from typing import NamedTuple

from eth_account import Account

from tinybrain.errors import LedgerUnavailable, PaymentServiceError
from tinybrain.payments.chain import Receipt
from tinybrain.payments.rpc import Rpc, RpcRefused
from tinybrain.payments.transactions import Fees, SignedTransaction, TransactionStore

log = logging.getLogger(__name__)

REPLACE_AFTER_S = 15.0
"""A transaction unmined for this long is sent again with higher fees; several blocks on Base."""
FIRST_POLL_S = 0.005  # a local chain mines at once
LONGEST_POLL_S = 0.5  # a block on Base takes two seconds
UNSEEN_POLLS = 8  # the node that counts nonces may be ahead of the one that has receipts
ATTEMPTS = 8
FEES_AGE_S = 1.0
MOST_TIMES_THE_MARKET = 10  # where raising fees ends, or a halted chain would empty the wallet
TRANSFER_GAS = 21_000
SETTLEMENT_GAS = 90_000  # of one USDC authorization alone: 85,740
REMEMBERED = 1_000  # hashes of closed nonces; their receipts, long with logs, are not kept

# What nodes say; each client has words of its own.
KNOWN = ("already known", "already imported", "alreadyknown", "known transaction")
NONCE_TAKEN = ("nonce too low", "oldnonce", "replacement transaction underpriced")
FEE_TOO_LOW = ("less than block base fee", "underpriced", "feetoolow")


class GasLeft(NamedTuple):
    """What a wallet holds in wei, and how many single settlements that pays for now."""

    balance: int
    settlements: int


class _Open:
    """A nonce that is not mined yet, with all versions of its transaction, oldest first."""

    def __init__(self, versions: list[SignedTransaction]) -> None:
        self.versions = versions
        self.sent_at: float | None = None  # None: whether the node has the last one is unknown
        self.unseen = 0
        self.closed: asyncio.Future[Receipt | None] = asyncio.get_running_loop().create_future()

    @property
    def last(self) -> SignedTransaction:
        return self.versions[-1]

    def is_due(self, after_s: float) -> bool:
        return self.sent_at is None or time.monotonic() - self.sent_at >= after_s


class HotWallet:
    """Sends transactions with consecutive nonces and sees to it that they are mined."""

    def __init__(
        self,
        private_key: str,
        rpc: Rpc,
        network: str,
        store: TransactionStore,
        *,
        replace_after_s: float = REPLACE_AFTER_S,
    ) -> None:
        self._account = Account.from_key(private_key)
        self.address: str = self._account.address
        self.rpc = rpc
        self._chain_id = int(network.partition(":")[2])
        self._store = store
        self._replace_after_s = replace_after_s
        self._sending = asyncio.Lock()
        self._open: dict[int, _Open] = {}
        self._by_hash: dict[str, _Open] = {}
        self._closed: OrderedDict[str, str | None] = OrderedDict()  # by the hash that was mined
        self._next_nonce = 0
        self._resumed = False
        self._in_step = False  # whether _next_nonce counts all that the chain's node knows
        self._base_fee = 0
        self._market = Fees(0, 0)
        self._market_at = -FEES_AGE_S
        self._tending: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    async def resume(self) -> None:
        """At start: take up what an earlier process sent or was about to send."""
        if self._resumed:
            return
        unmined = await self._store.unmined(self.address)
        self._resumed = True
        for tx in unmined:
            if entry := self._open.get(tx.nonce):
                entry.versions.append(tx)
            else:
                entry = self._open[tx.nonce] = _Open([tx])
            self._by_hash[tx.hash] = entry
        self._tend()

    async def send(self, to: str, data: str, gas: int) -> str:
        """Send a call of a contract with at most `gas` units; returns the transaction's hash.

        If the node does not answer, the transaction is on record and is sent again later.

        Raises:
            PaymentServiceError: It was not sent: the chain could not be asked, or refused it.
        """
        # A caller who leaves must not interrupt between record and broadcast.
        try:
            return await asyncio.shield(asyncio.create_task(self._send(to, data, gas)))
        except LedgerUnavailable as error:
            raise PaymentServiceError(
                "Transactions cannot be recorded, so none is sent; the same payment may be sent "
                "again."
            ) from error

    async def wait(self, tx_hash: str, timeout_s: float) -> Receipt | None:
        """Wait until a transaction, or one that replaced it, is mined.

        None: not within `timeout_s`, or another took its nonce; the chain's logs tell.

        Raises:
            PaymentServiceError: The transaction is closed or of another process, and the chain
                could not be asked.
        """
        entry = self._by_hash.get(tx_hash)
        if entry is None:
            return await self._read_receipt(self._closed.get(tx_hash, tx_hash))
        try:
            return await asyncio.wait_for(asyncio.shield(entry.closed), timeout_s)
        except TimeoutError:
            return None

    def may_be_mined(self, tx_hash: str) -> bool:
        """Whether a transaction of this process is on its way still."""
        return tx_hash in self._by_hash

    async def gas_left(self) -> GasLeft:
        """What is left for gas, on chains without a further fee for data.

        Raises:
            PaymentServiceError: The chain could not be asked.
        """
        await self._look()
        balance = int(await self.rpc.call("eth_getBalance", self.address, "latest"), 16)
        price = self._base_fee + self._market.priority_fee
        return GasLeft(balance, balance // max(1, SETTLEMENT_GAS * price))

    async def aclose(self) -> None:
        """Stop watching; what is not mined yet stays on record."""
        if self._tending is not None:
            self._tending.cancel()
            with suppress(asyncio.CancelledError):
                await self._tending

    async def _read_receipt(self, tx_hash: str | None) -> Receipt | None:
        if tx_hash is None:
            return None
        found = await self.rpc.call("eth_getTransactionReceipt", tx_hash)
        return Receipt.read(found) if found else None

    async def _send(self, to: str, data: str, gas: int) -> str:
        async with self._sending:
            await self.resume()
            fees = Fees(0, 0)
            for _ in range(ATTEMPTS):
                await self._get_in_step()
                fees = max(fees, self._market)
                nonce = self._next_nonce
                try:
                    tx = await self._launch(nonce, to, data, gas, fees)
                except RpcRefused as refusal:
                    await self._close(nonce, None)
                    self._in_step = False
                    if refusal.says(*NONCE_TAKEN):
                        self._next_nonce = nonce + 1
                    elif refusal.says(*FEE_TOO_LOW):
                        fees = fees.raised(self._market)
                    else:
                        raise self._refused(refusal) from refusal
                else:
                    self._next_nonce = nonce + 1
                    return tx.hash
            raise PaymentServiceError(
                f"The gas wallet {self.address} found no free nonce. If it goes on, another "
                "process uses the same TINYBRAIN_GAS_PRIVATE_KEY: stop one of them."
            )

    async def _get_in_step(self) -> None:
        """Before a nonce is taken: know the fees, and what the chain's node has counted."""
        if self._in_step and self._open and time.monotonic() - self._market_at < FEES_AGE_S:
            return
        pending = await self._look()
        # Never back: a node that lags behind would have us take a nonce twice.
        self._next_nonce = max(self._next_nonce, pending, *(n + 1 for n in self._open))
        self._in_step = True

    async def _look(self) -> int:
        """Read the fees of now; returns the next nonce as the node counts with its pool."""
        history, tip, pending = await self.rpc.call_all(
            [
                ("eth_feeHistory", ("0x1", "latest", ())),
                ("eth_maxPriorityFeePerGas", ()),
                ("eth_getTransactionCount", (self.address, "pending")),
            ]
        )
        self._base_fee = int(history["baseFeePerGas"][-1], 16)  # of the block to come
        self._market = Fees(2 * self._base_fee + int(tip, 16), int(tip, 16))
        self._market_at = time.monotonic()
        return int(pending, 16)

    async def _launch(
        self, nonce: int, to: str, data: str, gas: int, fees: Fees
    ) -> SignedTransaction:
        """Sign, record and broadcast a new version of a nonce's transaction.

        Raises:
            RpcRefused: The node will not have it.
        """
        tx = self._sign(nonce, to, data, gas, fees)
        await self._store.record(tx)
        entry = self._open.setdefault(nonce, _Open([]))
        entry.versions.append(tx)
        self._by_hash[tx.hash] = entry
        await self._broadcast(entry)
        self._tend()
        return tx

    def _sign(self, nonce: int, to: str, data: str, gas: int, fees: Fees) -> SignedTransaction:
        signed = self._account.sign_transaction(
            {
                "type": 2,
                "chainId": self._chain_id,
                "nonce": nonce,
                "to": to,
                "value": 0,
                "data": data,
                "gas": gas,
                "maxFeePerGas": fees.max_fee,
                "maxPriorityFeePerGas": fees.priority_fee,
            }
        )
        return SignedTransaction(
            wallet=self.address,
            nonce=nonce,
            hash=signed.hash.to_0x_hex(),
            raw=signed.raw_transaction.to_0x_hex(),
            to=to,
            data=data,
            gas=gas,
            max_fee=fees.max_fee,
            priority_fee=fees.priority_fee,
            created_ms=time.time_ns() // 1_000_000,
        )

    async def _broadcast(self, entry: _Open) -> None:
        entry.sent_at = time.monotonic()
        try:
            await self.rpc.call("eth_sendRawTransaction", entry.last.raw)
        except RpcRefused as refusal:
            if not refusal.says(*KNOWN):
                raise
        except PaymentServiceError as error:
            # It may have arrived. It is on record, and what tends the open ones sends it again.
            log.warning("transaction %s: %s", entry.last.hash, error.message)
            entry.sent_at = None

    def _refused(self, refusal: RpcRefused) -> PaymentServiceError:
        if refusal.says("insufficient funds"):
            return PaymentServiceError(
                f"The gas wallet {self.address} holds too little of the native coin: send it some."
            )
        log.error("the node refused a transaction: %s", refusal.reason)
        return refusal

    def _tend(self) -> None:
        self._news.set()
        if self._open and (self._tending is None or self._tending.done()):
            self._tending = asyncio.create_task(self._tend_open())

    async def _tend_open(self) -> None:
        """Until every nonce is closed: look for receipts, and send again what is lost or stuck."""
        pause_s = FIRST_POLL_S
        while self._open:
            self._news.clear()
            try:
                closed = await self._look_for_receipts()
            except Exception as error:  # noqa: BLE001  # must outlive every fault of node and store
                closed = False
                log.warning("watching the open transactions failed: %s", type(error).__name__)
            soon = closed or self._news.is_set()
            pause_s = FIRST_POLL_S if soon else min(2 * pause_s, LONGEST_POLL_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), pause_s)

    async def _look_for_receipts(self) -> bool:
        """Close what is mined and send what is due; returns whether something was closed."""
        count = int(await self.rpc.call("eth_getTransactionCount", self.address, "latest"), 16)
        before = len(self._open)
        passed = {nonce: entry for nonce, entry in self._open.items() if nonce < count}
        versions = [tx for entry in passed.values() for tx in entry.versions]
        found = await self.rpc.batch([("eth_getTransactionReceipt", (tx.hash,)) for tx in versions])
        for tx, receipt in zip(versions, found, strict=True):
            if isinstance(receipt, dict):
                await self._close(tx.nonce, Receipt.read(receipt))
        for nonce, entry in passed.items():
            entry.unseen += 1
            if nonce in self._open and entry.unseen >= UNSEEN_POLLS:
                log.warning("nonce %s of %s was taken by another transaction", nonce, self.address)
                await self._close(nonce, None)
        if any(entry.is_due(self._replace_after_s) for entry in self._open.values()):
            async with self._sending:
                await self._send_again(count)
        return len(self._open) < before

    async def _send_again(self, count: int) -> None:
        """Send what is due once more: the first in line with higher fees, or any that lags."""
        await self._look()
        due = sorted(n for n, e in self._open.items() if e.is_due(self._replace_after_s))
        if due and due[0] == min(self._open) and self._open[due[0]].sent_at is not None:
            for nonce in range(count, due[0]):  # a reorganisation took what stood there
                await self._try(self._launch(nonce, self.address, "0x", TRANSFER_GAS, self._market))
        for nonce in due:
            entry = self._open[nonce]
            fees = Fees(entry.last.max_fee, entry.last.priority_fee)
            stuck = nonce == count and entry.sent_at is not None
            lags = fees.max_fee < self._base_fee + self._market.priority_fee
            bearable = fees.max_fee < MOST_TIMES_THE_MARKET * self._market.max_fee
            if lags or (stuck and bearable):
                last, raised = entry.last, fees.raised(self._market)
                await self._try(self._launch(nonce, last.to, last.data, last.gas, raised))
            else:
                await self._try(self._broadcast(entry))

    async def _try(self, attempt: Awaitable[object]) -> None:
        try:
            await attempt
        except RpcRefused as refusal:
            log.warning("a transaction sent again was refused: %s", refusal.reason)

    async def _close(self, nonce: int, receipt: Receipt | None) -> None:
        mined = receipt.transaction if receipt else None
        await self._store.mined(self.address, nonce, mined)
        if entry := self._open.pop(nonce, None):
            entry.closed.set_result(receipt)
            for tx in entry.versions:
                self._by_hash.pop(tx.hash, None)
                self._closed[tx.hash] = mined
        while len(self._closed) > REMEMBERED:
            self._closed.popitem(last=False)
