"""What the chain knows of an EIP-3009 authorization. Reads only.

`authorizationState` cannot tell used from cancelled; the AuthorizationUsed event can. It names
payer and nonce only, and a payer can sign a nonce twice: whether this
authorization was the one used, the Transfer that the token emits right after it tells.
Source: EIP-3009.
"""

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, TypeVar

import requests
from eth_typing import BlockNumber
from web3 import HTTPProvider, Web3
from web3.exceptions import Web3Exception
from web3.middleware import ExtraDataToPOAMiddleware
from web3.types import LogReceipt

from tinybrain.errors import PaymentServiceError

T = TypeVar("T")

USED, CANCELED, TRANSFER = (
    Web3.to_hex(Web3.keccak(text=signature))
    for signature in (
        "AuthorizationUsed(address,bytes32)",
        "AuthorizationCanceled(address,bytes32)",
        "Transfer(address,address,uint256)",
    )
)
"""The events' first topics."""

RPC_TIMEOUT_S = 10
ABI = [
    {
        "type": "function",
        "name": "authorizationState",
        "stateMutability": "view",
        "inputs": [{"name": "authorizer", "type": "address"}, {"name": "nonce", "type": "bytes32"}],
        "outputs": [{"name": "", "type": "bool"}],
    },
    {
        "type": "function",
        "name": "balanceOf",
        "stateMutability": "view",
        "inputs": [{"name": "account", "type": "address"}],
        "outputs": [{"name": "", "type": "uint256"}],
    },
]


class Use(Enum):
    """What became of an authorization; CANCELLED also if its nonce moved money elsewhere."""

    UNUSED = "unused"
    TRANSFERRED = "transferred"
    CANCELLED = "cancelled"


class AuthorizationUse(NamedTuple):
    """The use, and the hash of the transfer if there was one."""

    use: Use
    transaction: str | None = None


class Chain:
    """A token on one network, read over JSON-RPC; synchronous calls run in threads."""

    def __init__(self, rpc_url: str, asset: str) -> None:
        provider = HTTPProvider(rpc_url, request_kwargs={"timeout": RPC_TIMEOUT_S})
        self._web3 = Web3(provider)
        self._web3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
        self._asset = Web3.to_checksum_address(asset)
        self._token = self._web3.eth.contract(address=self._asset, abi=ABI)

    async def authorization_use(
        self, payer: str, nonce: str, *, pay_to: str, amount: int, since: int, until: int
    ) -> AuthorizationUse:
        """Look up one authorization to move `amount` atomic units to `pay_to`.

        Its use is looked for between the Unix seconds `since` and `until`: an authorization
        cannot be used after it expired.

        Raises:
            PaymentServiceError: The chain could not be asked.
        """
        return await self._ask(
            lambda: self._authorization_use(payer, nonce, pay_to, amount, since, until)
        )

    async def chain_id(self) -> int:
        """The chain's number, the N of eip155:N."""
        return await self._ask(lambda: self._web3.eth.chain_id)

    async def balance(self, address: str) -> int:
        """Atomic units of the token that an address holds."""
        function = self._token.functions.balanceOf(Web3.to_checksum_address(address))
        return int(await self._ask(function.call))

    async def native_balance(self, address: str) -> int:
        """Wei that an address holds for gas."""
        checksummed = Web3.to_checksum_address(address)
        return int(await self._ask(lambda: self._web3.eth.get_balance(checksummed)))

    def _authorization_use(
        self, payer: str, nonce: str, pay_to: str, amount: int, since: int, until: int
    ) -> AuthorizationUse:
        spent = self._token.functions.authorizationState(
            Web3.to_checksum_address(payer), bytes.fromhex(nonce.removeprefix("0x"))
        ).call()
        if not spent:
            return AuthorizationUse(Use.UNUSED)
        logs = self._web3.eth.get_logs(
            {
                "address": self._asset,
                "fromBlock": self._first_block_at(since),
                "toBlock": self._first_block_at(until),
                "topics": [[USED, CANCELED], _word(payer), nonce],
            }
        )
        if not logs:
            # Another node, or a moment too early: no log proves nothing.
            raise PaymentServiceError("The chain does not show yet how it was used. Try again.")
        if self._is_followed_by_transfer(logs[0], payer, pay_to, amount):
            return AuthorizationUse(Use.TRANSFERRED, logs[0]["transactionHash"].to_0x_hex())
        return AuthorizationUse(Use.CANCELLED)

    def _first_block_at(self, time_s: int) -> BlockNumber:
        """The first block not older than `time_s`, or the newest: providers bound log ranges."""
        low, high = 0, self._web3.eth.block_number
        while low < high:
            middle = (low + high) // 2
            if self._web3.eth.get_block(BlockNumber(middle))["timestamp"] < time_s:
                low = middle + 1
            else:
                high = BlockNumber(middle)
        return BlockNumber(low)

    def _is_followed_by_transfer(
        self, used: LogReceipt, payer: str, pay_to: str, amount: int
    ) -> bool:
        if used["topics"][0].to_0x_hex() != USED:
            return False
        wanted = [TRANSFER, _word(payer), _word(pay_to)]
        receipt = self._web3.eth.get_transaction_receipt(used["transactionHash"])
        return any(
            log["logIndex"] == used["logIndex"] + 1
            and log["address"] == self._asset
            and [topic.to_0x_hex() for topic in log["topics"]] == wanted
            and int.from_bytes(log["data"]) == amount
            for log in receipt["logs"]
        )

    async def _ask(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(call)
        except (Web3Exception, requests.RequestException, OSError, ValueError) as error:
            raise PaymentServiceError(
                f"The chain could not be asked ({type(error).__name__}). Try again."
            ) from error


def _word(address: str) -> str:
    return f"0x{address.removeprefix('0x').lower():0>64}"
