"""Facilitators: who verifies a payment and who puts it on the chain.

All answer alike. A refusal is a response; a facilitator or chain that could not be asked is a
PaymentServiceError, so that a good payment is never refused because of a broken line.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import httpx
from eth_account import Account
from pydantic import SecretStr
from x402 import x402FacilitatorSync
from x402.http import FacilitatorConfig, HTTPFacilitatorClient
from x402.http.facilitator_client_base import AuthProvider, CreateHeadersAuthProvider
from x402.mechanisms.evm.constants import ERR_SETTLEMENT_PENDING
from x402.mechanisms.evm.exact.facilitator import ExactEvmScheme, ExactEvmSchemeConfig
from x402.schemas import (
    PaymentPayload,
    PaymentRequirements,
    SchemeNotFoundError,
    SettleResponse,
    SupportedResponse,
    VerifyResponse,
)

from tinybrain.config import Settings
from tinybrain.errors import ConfigError, PaymentServiceError
from tinybrain.payments.wallet import HotWallet

T = TypeVar("T", VerifyResponse, SettleResponse)

INVALID_PAYLOAD = "invalid_payload"
SETTLE_THREADS = 32  # each waits for a receipt; settlements must not hold up verifications
CONNECT_TIMEOUT_S = 10
ANSWER_TIMEOUT_S = 100  # a settlement waits for its receipt
MALFORMED = (
    SchemeNotFoundError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    OSError,
)
"""What the SDK raises for a payload it cannot read, and for a chain it cannot reach."""


class Facilitator(Protocol):
    """Verifies payments and settles them."""

    async def verify(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> VerifyResponse:
        """Say whether a payment meets the requirements and could be settled now.

        Raises:
            PaymentServiceError: The facilitator or the chain could not be asked.
        """
        ...

    async def settle(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> SettleResponse:
        """Move the money. `settlement_pending` with a hash means: sent, not mined yet.

        Raises:
            PaymentServiceError: The facilitator or the chain could not be asked; whether the
                money moved is unknown.
        """
        ...

    async def aclose(self) -> None:
        """Give back connections and threads."""
        ...


class OwnFacilitator:
    """Verifies and settles on the chain by itself, with gas from its own wallet."""

    def __init__(self, wallet: HotWallet, network: str) -> None:
        self._wallet = wallet
        self._sdk = x402FacilitatorSync()
        # Without simulation a replayed payment is broadcast, reverts, and costs gas.
        config = ExactEvmSchemeConfig(simulate_in_settle=True)
        self._sdk.register([network], ExactEvmScheme(wallet, config))
        self._settling = ThreadPoolExecutor(SETTLE_THREADS, thread_name_prefix="settle")

    async def verify(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> VerifyResponse:
        """See Facilitator."""
        return await asyncio.to_thread(self._verify, payload, requirements)

    async def settle(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> SettleResponse:
        """See Facilitator."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._settling, self._settle, payload, requirements)

    async def aclose(self) -> None:
        """See Facilitator. Settlements under way are finished."""
        await asyncio.to_thread(self._settling.shutdown)

    def supported(self) -> SupportedResponse:
        """The kinds of payment accepted, and the wallet that settles them."""
        return self._sdk.get_supported()

    def _verify(self, payload: PaymentPayload, requirements: PaymentRequirements) -> VerifyResponse:
        malformed = VerifyResponse(is_valid=False, invalid_reason=INVALID_PAYLOAD)
        result = self._ask(lambda: self._sdk.verify(payload, requirements), malformed)
        if not result.is_valid:
            self._require_answers()
        return result

    def _settle(self, payload: PaymentPayload, requirements: PaymentRequirements) -> SettleResponse:
        malformed = SettleResponse(
            success=False,
            error_reason=INVALID_PAYLOAD,
            transaction="",
            network=requirements.network,
        )
        result = self._ask(lambda: self._sdk.settle(payload, requirements), malformed)
        if not result.success and result.error_reason != ERR_SETTLEMENT_PENDING:
            self._require_answers()
        return result.model_copy(
            update={"transaction": self._wallet.mined_hash(result.transaction)}
        )

    def _ask(self, call: Callable[[], T], malformed: T) -> T:
        self._wallet.rpc.fault = None
        try:
            return call()
        except MALFORMED:
            return malformed

    def _require_answers(self) -> None:
        if fault := self._wallet.rpc.fault:
            raise PaymentServiceError(
                "The chain could not be asked; the same payment may be sent again."
            ) from fault


class ReadOnlyFacilitator(OwnFacilitator):
    """Verifies on the chain without a key that could spend gas; refuses to settle."""

    def __init__(self, rpc_url: str, network: str) -> None:
        # The SDK wants an account to ask from; this one holds nothing and is forgotten.
        throwaway = Account.create().key.to_0x_hex()
        super().__init__(HotWallet(throwaway, rpc_url), network)

    async def settle(
        self,
        payload: PaymentPayload,  # noqa: ARG002  # the protocol's signature
        requirements: PaymentRequirements,  # noqa: ARG002
    ) -> SettleResponse:
        """Refuse: settling is the work of the one process that holds the gas key."""
        raise ConfigError("This process verifies payments only; the Settlement deployment settles.")


class HttpFacilitator:
    """A facilitator elsewhere, spoken to in x402's HTTP format."""

    def __init__(self, url: str, *, auth: AuthProvider | None = None) -> None:
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            event_hooks={"response": [_let_the_body_decide]},
        )
        self._sdk = HTTPFacilitatorClient(
            FacilitatorConfig(url=url, http_client=self._http, auth_provider=auth)
        )

    async def verify(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> VerifyResponse:
        """See Facilitator."""
        try:
            return await self._sdk.verify(payload, requirements)
        except (httpx.HTTPError, ValueError) as error:
            raise self._unreachable(error) from error

    async def settle(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> SettleResponse:
        """See Facilitator."""
        try:
            return await self._sdk.settle(payload, requirements)
        except (httpx.HTTPError, ValueError) as error:
            raise self._unreachable(error) from error

    async def aclose(self) -> None:
        """See Facilitator."""
        await self._http.aclose()

    def _unreachable(self, error: Exception) -> PaymentServiceError:
        return PaymentServiceError(
            f"The facilitator did not answer ({type(error).__name__}); the same payment may be "
            "sent again."
        )


async def _let_the_body_decide(response: httpx.Response) -> None:
    """Facilitators refuse with a status of 4xx and the verdict as body; the SDK wants a 200."""
    if not httpx.codes.is_client_error(response.status_code):
        return
    await response.aread()
    try:
        verdict = response.json()
    except ValueError:
        return
    if isinstance(verdict, dict) and ("isValid" in verdict or "success" in verdict):
        response.status_code = httpx.codes.OK


def build_verifier(settings: Settings) -> Facilitator:
    """The facilitator of a process that admits payments and holds no gas key.

    Raises:
        ConfigError: `facilitator` is not set, or what it needs is missing.
    """
    if settings.facilitator == "own":
        return ReadOnlyFacilitator(settings.rpc, settings.network)
    return _remote(settings)


def build_settler(settings: Settings) -> Facilitator:
    """The facilitator of the one process that settles.

    Raises:
        ConfigError: `facilitator` is not set, or what it needs is missing.
    """
    if settings.facilitator == "own":
        return build_own_facilitator(settings)
    return _remote(settings)


def build_own_facilitator(settings: Settings) -> OwnFacilitator:
    """The facilitator that pays gas from `gas_private_key`.

    Raises:
        ConfigError: The key is not set.
    """
    key = _secret(settings.gas_private_key, "TINYBRAIN_GAS_PRIVATE_KEY")
    return OwnFacilitator(HotWallet(key, settings.rpc), settings.network)


def _remote(settings: Settings) -> HttpFacilitator:
    if settings.facilitator is None:
        raise ConfigError(
            'TINYBRAIN_FACILITATOR is missing: set it to "own", "cdp", or a facilitator\'s URL.'
        )
    if settings.facilitator == "cdp":
        return _coinbase(settings)
    return HttpFacilitator(settings.facilitator)


def _coinbase(settings: Settings) -> HttpFacilitator:
    key_id = _secret(settings.cdp_api_key_id, "CDP_API_KEY_ID")
    key_secret = _secret(settings.cdp_api_key_secret, "CDP_API_KEY_SECRET")
    try:
        from cdp.x402 import create_facilitator_config  # noqa: PLC0415  # an optional extra
    except ImportError:
        raise ConfigError(
            "TINYBRAIN_FACILITATOR is cdp, which needs Coinbase's package: "
            "run `pip install tinybrain[cdp]`."
        ) from None
    config = create_facilitator_config(key_id, key_secret)
    return HttpFacilitator(config["url"], auth=CreateHeadersAuthProvider(config["create_headers"]))


def _secret(value: SecretStr | None, name: str) -> str:
    if value is None:
        raise ConfigError(f"{name} is missing: the chosen facilitator cannot work without it.")
    return value.get_secret_value()
