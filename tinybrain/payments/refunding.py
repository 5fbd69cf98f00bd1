"""Signs refunds: EIP-3009 authorizations from our wallet to a payer.

The ledger decides what is given back and under which nonce, so a refund may be signed as often as
it takes; the token moves its money once. Knows neither ledger nor chain.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from eth_account import Account
from eth_utils.address import to_checksum_address
from sqlalchemy import Row
from x402.schemas import PaymentPayload, PaymentRequirements

from tinybrain.config import Settings
from tinybrain.errors import TinyBrainError
from tinybrain.payments.eip3009 import Authorization, Domain, sign

BACKDATED_S = 600  # as stock clients do: the chain's clock may lag


class CannotSign(TinyBrainError):
    """The treasury's key is not that of the wallet a refund must come from."""

    default_code = "refund_not_signed"


@dataclass(frozen=True, slots=True)
class SignedRefund:
    """A refund as a facilitator takes it; `valid_before` in Unix seconds."""

    payload: PaymentPayload = field(repr=False)
    requirements: PaymentRequirements
    valid_before: int


class RefundSigner:
    """Signs with the treasury's key, if that is given."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._address = treasury_address(settings)
        self._domain = Domain.of(settings.network, settings.token)
        self._clock = clock

    def sign(self, row: Row[Any]) -> SignedRefund:
        """Sign a refund's row with its nonce, valid from now on as long as a payment would be.

        Raises:
            CannotSign: The money is not in the treasury's wallet, or there is no key.
        """
        key = self._settings.treasury_private_key
        if key is None or self._address != row.payer:
            raise CannotSign(
                f"The refund must come from {row.payer}, and TREASURY_PRIVATE_KEY is not its key. "
                "Set the key of the address that was paid."
            )
        now = int(self._clock())
        authorization = Authorization.model_validate(
            {
                "from": to_checksum_address(row.payer),
                "to": to_checksum_address(row.pay_to),
                "value": row.amount,
                "validAfter": now - BACKDATED_S,
                "validBefore": now + self._settings.payment_timeout_s,
                "nonce": row.nonce,
            }
        )
        requirements = self._requirements(authorization)
        payload = PaymentPayload(
            payload={
                "authorization": authorization.to_wire(),
                "signature": sign(authorization, key.get_secret_value(), self._domain),
            },
            accepted=requirements,
        )
        return SignedRefund(payload, requirements, authorization.valid_before)

    def _requirements(self, authorization: Authorization) -> PaymentRequirements:
        token = self._settings.token
        return PaymentRequirements(
            scheme="exact",
            network=self._settings.network,
            asset=token.address,
            amount=str(authorization.value),
            pay_to=authorization.to,
            max_timeout_seconds=self._settings.payment_timeout_s,
            extra={"name": token.name, "version": token.version},
        )


def can_refund(settings: Settings) -> bool:
    """Whether what is paid upfront can be given back: the treasury's key is that of `pay_to`.

    The settings may say that it is not to be.
    """
    treasury = treasury_address(settings)
    return (
        settings.refunds is not False
        and treasury is not None
        and treasury == (settings.pay_to or "").lower()
    )


def treasury_address(settings: Settings) -> str | None:
    """The address of the treasury's key, in lower case; None without a key."""
    key = settings.treasury_private_key
    return str(Account.from_key(key.get_secret_value()).address).lower() if key else None
