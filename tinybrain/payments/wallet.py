"""The hot wallet: sends the facilitator's transactions and pays their gas.

One wallet belongs to one process: two processes with one key would take each other's nonces.
It knows transactions, nonces and fees; it knows nothing of x402 payments or of the ledger.
"""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import requests
from hexbytes import HexBytes
from web3 import HTTPProvider, Web3
from web3.exceptions import TimeExhausted, TransactionNotFound, Web3RPCError
from web3.middleware import ExtraDataToPOAMiddleware
from web3.providers.rpc.utils import ExceptionRetryConfiguration
from web3.types import RPCEndpoint, RPCResponse
from x402.mechanisms.evm.constants import TX_STATUS_SUCCESS
from x402.mechanisms.evm.data_suffix import append_data_suffix
from x402.mechanisms.evm.signers import FacilitatorWeb3Signer
from x402.mechanisms.evm.types import TransactionReceipt

RPC_TIMEOUT_S = 10
FIRST_POLL_S = 0.01  # a local chain mines at once
LONGEST_POLL_S = 0.5  # a block on Base takes two seconds
REPLACE_AFTER_S = 15.0
"""A transaction unmined for this long is sent again with higher fees; several blocks on Base."""


class RpcProvider(HTTPProvider):
    """JSON-RPC over HTTP that remembers, for each thread, a call the node did not answer.

    The x402 SDK turns such failures into refusals of the payment; `fault` tells them apart.
    """

    def __init__(self, rpc_url: str, *, timeout_s: float = RPC_TIMEOUT_S) -> None:
        super().__init__(
            rpc_url,
            request_kwargs={"timeout": timeout_s},
            # Once more at most: a kept-alive connection may have been closed, but a node that
            # is silent must not hold a payment for many time-outs.
            exception_retry_configuration=ExceptionRetryConfiguration(
                errors=(requests.ConnectionError,), retries=2
            ),
            # web3 asks for it before every call; it never changes.
            cache_allowed_requests=True,
            cacheable_requests={RPCEndpoint("eth_chainId")},
        )
        self._calling = threading.local()

    @property
    def fault(self) -> Exception | None:
        """The last failure of this thread since it was cleared."""
        return getattr(self._calling, "fault", None)

    @fault.setter
    def fault(self, error: Exception | None) -> None:
        self._calling.fault = error

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Send one request; a reverted call is an answer of the chain, all else a fault."""
        try:
            response = super().make_request(method, params)
        except Exception as error:
            self.fault = error
            raise
        if "error" in response and "revert" not in str(response["error"]).lower():
            self.fault = Web3RPCError(str(response["error"]))
        return response


@dataclass(slots=True)
class _Sent:
    """A nonce's transaction, as last sent, and the hashes of all its versions."""

    transaction: dict[str, Any]
    hashes: list[HexBytes]
    at: float = field(default_factory=time.monotonic)


class HotWallet(FacilitatorWeb3Signer):
    """A facilitator's signer whose nonces never leave a gap.

    The SDK's own signer reserves a nonce before it broadcasts and never gives it back. Here
    allocation and broadcast are one step under a lock, after a failed broadcast the next nonce is
    read from the chain, and a transaction that is not mined is replaced with higher fees.
    """

    def __init__(
        self,
        private_key: str,
        rpc_url: str,
        *,
        confirmation_timeout_s: float = 90,
        rpc_timeout_s: float = RPC_TIMEOUT_S,
    ) -> None:
        super().__init__(private_key, rpc_url, confirmation_timeout_s)
        self.rpc = RpcProvider(rpc_url, timeout_s=rpc_timeout_s)
        self._w3 = Web3(self.rpc)
        self._w3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
        self._sending = threading.Lock()
        self._unmined: dict[int, _Sent] = {}
        self._replaced: dict[str, str] = {}

    def write_contract(
        self,
        address: str,
        abi: list[dict[str, Any]],
        function_name: str,
        *args: Any,
        data_suffix: str | None = None,
    ) -> str:
        """Call a contract's function in a transaction.

        Returns:
            The transaction's hash, 0x and 64 hexadecimal digits.
        """
        contract = self._w3.eth.contract(abi=abi)
        data = contract.encode_abi(function_name, args=list(args))
        return self._send(address, append_data_suffix(data, data_suffix))

    def send_transaction(self, to: str, data: bytes) -> str:
        """Send `data` to an address in a transaction; returns its hash."""
        return self._send(to, data)

    def wait_for_transaction_receipt(self, tx_hash: str) -> TransactionReceipt:
        """Wait until a transaction, or the one that replaced it, is mined.

        Raises:
            TimeExhausted: It was not mined within `confirmation_timeout_s`.
        """
        deadline = time.monotonic() + self._confirmation_timeout_seconds
        nonce = self._nonce_of(tx_hash)
        pause_s = FIRST_POLL_S
        while True:
            if receipt := self._receipt(tx_hash, nonce):
                return receipt
            if time.monotonic() > deadline:
                self._next_nonce = None  # a node that lost transactions expects an earlier one
                raise TimeExhausted(f"Transaction {tx_hash} is not mined yet.")
            if nonce is not None:
                self._replace(nonce, older_than_s=REPLACE_AFTER_S)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_POLL_S)

    def replace_stuck(self, *, older_than_s: float = REPLACE_AFTER_S) -> list[str]:
        """Send every transaction that is unmined for so long again, with fees 12.5 % higher.

        Returns:
            The new hashes, in nonce order.
        """
        mined = self._w3.eth.get_transaction_count(self._account.address, "latest")
        with self._sending:
            self._unmined = {nonce: sent for nonce, sent in self._unmined.items() if nonce >= mined}
            nonces = sorted(self._unmined)
        hashes = (self._replace(nonce, older_than_s=older_than_s) for nonce in nonces)
        return [tx_hash for tx_hash in hashes if tx_hash]

    def mined_hash(self, tx_hash: str) -> str:
        """The hash under which a transaction was mined, if fees were raised after `tx_hash`."""
        return self._replaced.get(tx_hash, tx_hash)

    def _send(self, to: str, data: str | bytes) -> str:
        call = {
            "to": Web3.to_checksum_address(to),
            "data": data,
            "value": 0,
            "gas": self._gas_limit,
            "chainId": self.get_chain_id(),
            **self._market_fees(),
        }
        with self._sending:
            nonce = self._next_nonce
            if nonce is None:
                nonce = self._w3.eth.get_transaction_count(self._account.address, "pending")
            self._next_nonce = None  # and so it stays if the broadcast fails: then ask the chain
            transaction = {**call, "nonce": nonce}
            tx_hash = self._broadcast(transaction)
            self._next_nonce = nonce + 1
            self._unmined[nonce] = _Sent(transaction, [tx_hash])
        return tx_hash.to_0x_hex()

    def _market_fees(self) -> dict[str, int]:
        base = self._w3.eth.get_block("latest")["baseFeePerGas"]
        tip = self._w3.eth.max_priority_fee
        return {"maxPriorityFeePerGas": tip, "maxFeePerGas": 2 * base + tip}

    def _broadcast(self, transaction: dict[str, Any]) -> HexBytes:
        signed = self._account.sign_transaction(transaction)
        try:
            return self._w3.eth.send_raw_transaction(signed.raw_transaction)
        except Exception:
            # The answer may have been lost after the node took the transaction.
            if self._node_has(signed.hash):
                return HexBytes(signed.hash)
            raise

    def _node_has(self, tx_hash: HexBytes) -> bool:
        try:
            self._w3.eth.get_transaction(tx_hash)
        except (TransactionNotFound, Web3RPCError, OSError):
            return False
        return True

    def _nonce_of(self, tx_hash: str) -> int | None:
        wanted = HexBytes(tx_hash)
        with self._sending:
            for nonce, sent in self._unmined.items():
                if wanted in sent.hashes:
                    return nonce
        return None

    def _receipt(self, tx_hash: str, nonce: int | None) -> TransactionReceipt | None:
        sent = self._unmined.get(nonce) if nonce is not None else None
        for version in list(sent.hashes) if sent else [HexBytes(tx_hash)]:
            try:
                receipt = self._w3.eth.get_transaction_receipt(version)
            except TransactionNotFound:
                continue
            if nonce is not None:
                with self._sending:
                    self._unmined.pop(nonce, None)
            if version.to_0x_hex() != tx_hash:
                self._replaced[tx_hash] = version.to_0x_hex()
            return TransactionReceipt(
                status=TX_STATUS_SUCCESS if receipt["status"] == 1 else 0,
                block_number=receipt["blockNumber"],
                tx_hash=version.to_0x_hex(),
                logs=list(receipt["logs"]),
            )
        return None

    def _replace(self, nonce: int, *, older_than_s: float) -> str | None:
        with self._sending:
            sent = self._unmined.get(nonce)
            if sent is None or time.monotonic() - sent.at < older_than_s:
                return None
            sent.at = time.monotonic()
            raised = {
                # Nodes want at least a tenth more on both fees before they replace.
                name: max(sent.transaction[name] * 9 // 8 + 1, fee)
                for name, fee in self._market_fees().items()
            }
            transaction = {**sent.transaction, **raised}
            try:
                tx_hash = self._broadcast(transaction)
            except (Web3RPCError, OSError):
                return None  # mined meanwhile, or the node is away: the receipt will tell
            sent.transaction = transaction
            sent.hashes.append(tx_hash)
        return tx_hash.to_0x_hex()
