"""Whether an x402 payment of scheme `exact` is good: by its terms, and by asking the token.

The token is asked by simulating the transfer, so its signature check, balances, nonces and
blacklist all count. Moves no money.
Source: x402, scheme `exact` on EVM; EIP-3009.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, Field, ValidationError
from x402.mechanisms.evm.constants import (
    ERR_AUTHORIZATION_VALUE_MISMATCH,
    ERR_INSUFFICIENT_BALANCE,
    ERR_INVALID_SIGNATURE,
    ERR_NETWORK_MISMATCH,
    ERR_NONCE_ALREADY_USED,
    ERR_RECIPIENT_MISMATCH,
    ERR_TRANSACTION_SIMULATION_FAILED,
    ERR_UNSUPPORTED_SCHEME,
    ERR_VALID_AFTER_FUTURE,
    ERR_VALID_BEFORE_EXPIRED,
    SCHEME_EXACT,
)
from x402.schemas import PaymentPayload, PaymentRequirements

from tinybrain.errors import PaymentServiceError
from tinybrain.payments.eip3009 import Authorization, calldata
from tinybrain.payments.facilitators.multicall import MULTICALL3, aggregate, outcomes
from tinybrain.payments.rpc import Rpc, RpcRefused

INVALID_PAYLOAD = "invalid_payload"
UNSUPPORTED_ASSET = "unsupported_asset"
REASONS = {
    "exceeds balance": ERR_INSUFFICIENT_BALANCE,
    "used or canceled": ERR_NONCE_ALREADY_USED,
    "invalid signature": ERR_INVALID_SIGNATURE,
    "is expired": ERR_VALID_BEFORE_EXPIRED,
    "not yet valid": ERR_VALID_AFTER_FUTURE,
    "is blacklisted": "invalid_exact_evm_account_blacklisted",
    "paused": "invalid_exact_evm_token_paused",
}
"""The token's own words, and x402's names for them; the last two are ours, x402 has none."""

LEAST_WINDOW_S = 6  # a few blocks, as the SDK asks
ALONE_GAS = 200_000
"""Bounds what a payer's own code can burn; a key holder's payment takes at most 103,000."""
BATCH_GAS, ITEM_GAS = 60_000, 110_000


class _Exact(BaseModel):
    authorization: Authorization
    signature: str = Field(pattern=r"^0x([0-9a-fA-F]{2}){65,2048}$")


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment whose terms are right, and the call that settles it."""

    authorization: Authorization
    data: str = field(repr=False)

    @property
    def payer(self) -> str:
        """Its address in lower case."""
        return self.authorization.payer.lower()

    @property
    def key(self) -> tuple[str, str]:
        """What the token lets through once: payer and nonce."""
        return self.payer, self.authorization.nonce.lower()


def batch_gas(size: int) -> int:
    """The gas limit of a batch of so many key holders' payments."""
    return BATCH_GAS + size * ITEM_GAS


class ExactChecks:
    """Checks payments in one token on one network."""

    def __init__(self, rpc: Rpc, network: str, asset: str) -> None:
        self._rpc = rpc
        self._network = network
        self._asset = asset
        self._has_token = False

    def read(
        self, payload: PaymentPayload, requirements: PaymentRequirements, *, now: float
    ) -> Payment | str:
        """Read a payment; the reason if it does not meet the requirements."""
        accepted = payload.accepted
        try:
            exact = _Exact.model_validate(payload.payload)
            amount = int(requirements.amount)
        except (ValidationError, ValueError):
            return INVALID_PAYLOAD
        authorization = exact.authorization
        checks = (
            (
                accepted.scheme == requirements.scheme == SCHEME_EXACT,
                ERR_UNSUPPORTED_SCHEME,
            ),
            (accepted.network == requirements.network == self._network, ERR_NETWORK_MISMATCH),
            (requirements.asset.lower() == self._asset.lower(), UNSUPPORTED_ASSET),
            (authorization.to.lower() == requirements.pay_to.lower(), ERR_RECIPIENT_MISMATCH),
            (authorization.value == amount, ERR_AUTHORIZATION_VALUE_MISMATCH),
            (authorization.valid_before >= now + LEAST_WINDOW_S, ERR_VALID_BEFORE_EXPIRED),
            (authorization.valid_after <= now, ERR_VALID_AFTER_FUTURE),
        )
        for passed, reason in checks:
            if not passed:
                return reason
        return Payment(authorization, calldata(authorization, exact.signature))

    async def refusal(self, payment: Payment) -> str | None:
        """Why the token would refuse a payment now; None if it would not.

        Raises:
            PaymentServiceError: The chain could not be asked.
        """
        await self._require_token()
        call = {"to": self._asset, "data": payment.data, "gas": hex(ALONE_GAS)}
        try:
            await self._rpc.call("eth_call", call, "latest")
        except RpcRefused as refusal:
            if not refusal.reverted:
                raise
            return _reason(f"{refusal.reason} {_text(refusal.data)}")
        return None

    async def batch_refusals(self, payments: Sequence[Payment]) -> list[str | None]:
        """Likewise for each of a batch, in which those before it count.

        Raises:
            PaymentServiceError: The chain could not be asked.
        """
        await self._require_token()
        data = aggregate(self._asset, [payment.data for payment in payments])
        call = {"to": MULTICALL3, "data": data, "gas": hex(batch_gas(len(payments)))}
        returned = await self._rpc.call("eth_call", call, "latest")
        return [None if passed else _reason(_text(why)) for passed, why in outcomes(returned)]

    async def holding_code(self, addresses: Sequence[str]) -> set[str]:
        """Those of the addresses that are contracts, or act as one (EIP-7702).

        Raises:
            PaymentServiceError: The chain could not be asked.
        """
        codes = await self._rpc.call_all([("eth_getCode", (each, "latest")) for each in addresses])
        return {each for each, code in zip(addresses, codes, strict=True) if code != "0x"}

    async def _require_token(self) -> None:
        """An address without code would accept every payment."""
        if not self._has_token and not await self.holding_code([self._asset]):
            raise PaymentServiceError(
                f"There is no token at {self._asset} on this chain: check TINYBRAIN_RPC_URL and "
                "TINYBRAIN_ASSET."
            )
        self._has_token = True


def _reason(text: str) -> str:
    for words, reason in REASONS.items():
        if words in text:
            return reason
    return ERR_TRANSACTION_SIMULATION_FAILED


def _text(revert_data: object) -> str:
    """What a revert says; the words of an ABI-encoded Error(string) stand in it as they are."""
    if isinstance(revert_data, bytes):
        return revert_data.decode(errors="ignore")
    try:
        return bytes.fromhex(str(revert_data).removeprefix("0x")).decode(errors="ignore")
    except ValueError:
        return ""
