"""What the chain knows of a token: authorizations, balances, transfers. Reads only.

`authorizationState` cannot tell used from cancelled; the AuthorizationUsed event can. It names
payer and nonce only, and a payer can sign a nonce twice: whether this
authorization was the one used, the Transfer that the token emits right after it tells.
Source: EIP-3009.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple

from eth_utils.crypto import keccak

from tinybrain.errors import PaymentServiceError
from tinybrain.payments.eip3009 import CANCELED, TRANSFER, USED, Log, Transfer, topic, transfers
from tinybrain.payments.rpc import Rpc, RpcRefused

AUTHORIZATION_STATE, BALANCE_OF = (
    f"0x{keccak(text=signature)[:4].hex()}"
    for signature in ("authorizationState(address,bytes32)", "balanceOf(address)")
)
LOG_RANGE = 2_000
"""Blocks asked for at once; a provider that takes fewer refuses, and is asked for half."""
TOPICS = 200  # addresses in one filter

BlockTag = int | str
"""A block's number, or "latest", "safe" or "finalized"."""


class Receipt(NamedTuple):
    """A mined transaction, with its logs as the node's JSON has them."""

    transaction: str
    block: int
    succeeded: bool
    logs: list[Log]

    @classmethod
    def read(cls, found: dict[str, Any]) -> "Receipt":
        """Read what eth_getTransactionReceipt answers."""
        return cls(
            transaction=found["transactionHash"],
            block=_int(found["blockNumber"]),
            succeeded=_int(found["status"]) == 1,
            logs=found["logs"],
        )


EXPIRY_MARGIN_S = 60  # a reorganisation may put blocks with lower timestamps in place of these


class Use(Enum):
    """What became of an authorization; CANCELLED also if its nonce moved money elsewhere."""

    UNUSED = "unused"
    EXPIRED = "expired"  # and never used
    TRANSFERRED = "transferred"
    CANCELLED = "cancelled"


class AuthorizationUse(NamedTuple):
    """The use, with the hash and the block of the transfer if there was one."""

    use: Use
    transaction: str | None = None
    block: int | None = None


class Chain:
    """A token on one network."""

    def __init__(self, rpc: Rpc, asset: str) -> None:
        self._rpc = rpc
        self._asset = asset

    async def authorization_use(
        self,
        payer: str,
        nonce: str,
        *,
        pay_to: str,
        amount: int,
        since: int,
        until: int,
        block_tag: BlockTag = "latest",
    ) -> AuthorizationUse:
        """Look up one authorization to move `amount` atomic units to `pay_to`.

        Its use is looked for between the Unix seconds `since` and `until`: an authorization
        cannot be used after it expired. It counts if it was used up to `block_tag`, and expired
        is what no later block can take: the chain's time decides, for after an outage blocks are
        made up with old timestamps.

        Raises:
            PaymentServiceError: The chain could not be asked.
        """
        data = AUTHORIZATION_STATE + _digits(topic(payer)) + _digits(nonce)
        # First the block, then the state in it: a later use would be in a later block.
        at = await self._block(hex(block_tag) if isinstance(block_tag, int) else block_tag)
        if not await self._read(data, _int(at["number"])):
            expired = _int(at["timestamp"]) >= until + EXPIRY_MARGIN_S
            return AuthorizationUse(Use.EXPIRED if expired else Use.UNUSED)
        head = await self._block("latest")
        first = await self._first_block_at(since, head)
        last = await self._first_block_at(until, head)
        logs = await self._logs([[USED, CANCELED], topic(payer), nonce], first, last)
        receipt = await self._receipt(logs[0]["transactionHash"]) if logs else None
        if receipt is None:
            # Another node, or a moment too early: what is not seen proves nothing.
            raise PaymentServiceError("The chain does not show yet how it was used. Try again.")
        wanted = (payer.lower(), pay_to.lower(), amount, nonce.lower())
        for made in transfers(receipt.logs, self._asset):
            if (made.sender, made.receiver, made.value, made.nonce) == wanted:
                return AuthorizationUse(Use.TRANSFERRED, made.transaction, made.block)
        return AuthorizationUse(Use.CANCELLED)

    async def chain_id(self) -> int:
        """The chain's number, the N of eip155:N."""
        return _int(await self._rpc.call("eth_chainId"))

    async def head(self) -> int:
        """The newest block's number."""
        return _int(await self._rpc.call("eth_blockNumber"))

    async def balance(self, address: str, block: BlockTag = "latest") -> int:
        """Atomic units of the token that an address holds."""
        return await self._read(BALANCE_OF + _digits(topic(address)), block)

    async def native_balance(self, address: str) -> int:
        """Wei that an address holds for gas."""
        return _int(await self._rpc.call("eth_getBalance", address, "latest"))

    async def still_there(self, transaction: str) -> int | None:
        """The block in which a transaction stands now and succeeded; None if there is none.

        After a reorganisation it may stand in another block than before, or in none.
        """
        receipt = await self._receipt(transaction)
        return receipt.block if receipt and receipt.succeeded else None

    async def transfers(
        self, addresses: Iterable[str], *, from_block: int, to_block: int
    ) -> list[Transfer]:
        """All transfers of the token from or to any of the addresses, oldest first.

        Raises:
            PaymentServiceError: The chain could not be asked.
        """
        topics = [topic(address) for address in addresses]
        found: list[Transfer] = []
        for first in range(from_block, to_block + 1, LOG_RANGE):
            last = min(first + LOG_RANGE - 1, to_block)
            logs = await self._transfer_logs(topics, first, last)
            found += transfers(logs, self._asset)
        return found

    async def _transfer_logs(self, addresses: list[str], first: int, last: int) -> list[Log]:
        """The Transfer logs, and the AuthorizationUsed logs of their senders, in their order."""
        logs: list[Log] = []
        for some in _parts(addresses):
            logs += await self._logs([TRANSFER, some], first, last)
            logs += await self._logs([TRANSFER, None, some], first, last)
        for some in _parts(sorted({log["topics"][1] for log in logs})):
            logs += await self._logs([USED, some], first, last)
        by_place = {(_int(log["blockNumber"]), _int(log["logIndex"])): log for log in logs}
        return [by_place[place] for place in sorted(by_place)]

    async def _logs(self, topics: list[Any], first: int, last: int) -> list[Log]:
        log_filter = {
            "address": self._asset,
            "fromBlock": hex(first),
            "toBlock": hex(last),
            "topics": topics,
        }
        try:
            logs: list[Log] = await self._rpc.call("eth_getLogs", log_filter)
        except RpcRefused:
            if first == last:
                raise
            middle = (first + last) // 2
            earlier = await self._logs(topics, first, middle)
            return earlier + await self._logs(topics, middle + 1, last)
        return logs

    async def block_before(self, time_s: int) -> int:
        """The newest block older than the Unix second `time_s`.

        Raises:
            PaymentServiceError: The chain could not be asked.
        """
        head = await self._block("latest")
        return max(0, await self._first_block_at(time_s, head) - 1)

    async def _first_block_at(self, time_s: int, head: dict[str, Any]) -> int:
        """The first block not older than `time_s`, or the newest: providers bound log ranges."""
        low, high = 0, _int(head["number"])
        if _int(head["timestamp"]) < time_s:
            return high
        while low < high:
            middle = (low + high) // 2
            if _int((await self._block(hex(middle)))["timestamp"]) < time_s:
                low = middle + 1
            else:
                high = middle
        return low

    async def _block(self, tag: str) -> dict[str, Any]:
        block: dict[str, Any] | None = await self._rpc.call("eth_getBlockByNumber", tag, False)
        if block is None:
            raise PaymentServiceError("The chain's node lags behind. Try again.")
        return block

    async def _receipt(self, transaction: str) -> Receipt | None:
        found = await self._rpc.call("eth_getTransactionReceipt", transaction)
        return Receipt.read(found) if found else None

    async def _read(self, data: str, block: BlockTag) -> int:
        tag = hex(block) if isinstance(block, int) else block
        word = await self._rpc.call("eth_call", {"to": self._asset, "data": data}, tag)
        if word == "0x" and isinstance(block, int):
            return 0  # the token came later; one that is not there at all shows at "latest"
        if word == "0x":
            raise PaymentServiceError(
                f"There is no token at {self._asset} on this chain: check TINYBRAIN_RPC_URL and "
                "TINYBRAIN_ASSET."
            )
        return _int(word)


def _parts(values: Sequence[str]) -> Iterator[Sequence[str]]:
    return (values[i : i + TOPICS] for i in range(0, len(values), TOPICS))


def _digits(word: str) -> str:
    return word.removeprefix("0x")


def _int(digits: str) -> int:
    return int(digits, 16)
