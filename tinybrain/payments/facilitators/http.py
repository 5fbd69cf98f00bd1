"""A facilitator elsewhere, spoken to in x402's HTTP format.

Whatever it does, an answer is a verdict or a PaymentServiceError, within a bounded time and from a
bounded number of bytes. Knows nothing of other facilitators or of the chain.
Source: x402 specification v2, facilitator interface (POST /verify, POST /settle).
"""

import asyncio
import re
from typing import Literal, TypeVar

import httpx
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from x402.http.facilitator_client_base import AuthProvider
from x402.mechanisms.evm.constants import ERR_SETTLEMENT_PENDING
from x402.mechanisms.evm.v1.constants import V1_NETWORK_CHAIN_IDS
from x402.schemas import (
    PaymentPayload,
    PaymentRequirements,
    SettleRequest,
    SettleResponse,
    VerifyRequest,
    VerifyResponse,
)

from tinybrain.errors import PaymentServiceError
from tinybrain.payments.facilitators.base import SettlesOneByOne

CONNECT_TIMEOUT_S = 5
VERIFY_TIMEOUT_S = 10
SETTLE_TIMEOUT_S = 60  # a settlement waits for its receipt
MAX_ANSWER_BYTES = 64 * 1024
TRANSACTION_HASH = re.compile(r"0x[0-9a-fA-F]{64}")
REASON = re.compile(r"[\w.:-]{1,100}", re.ASCII)
INVALID_PAYLOAD = "invalid_payload"
NO_VERDICT = frozenset(
    {
        "unexpected_verify_error",
        "unexpected_settle_error",
        "unsupported_scheme",
        "invalid_scheme",
        "invalid_network",
        "invalid_x402_version",
        "invalid_payment_requirements",
        "transaction_failed",
        "duplicate_settlement",
        "settle_exact_node_failure",
        "settle_exact_failed_onchain",
        "settle_exact_evm_transaction_confirmation_timed_out",
    }
)
"""Reasons that tell of the facilitator, its node or its gas: the payment may be good or settled."""


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True)

    approved: bool
    reason: str | None
    payer: str | None = None


class _Verified(_Answer):
    approved: bool = Field(alias="isValid")
    reason: str | None = Field(None, alias="invalidReason")


class _Settled(_Answer):
    approved: bool = Field(alias="success")
    reason: str | None = Field(None, alias="errorReason")
    transaction: str | None = None
    network: str | None = None


T = TypeVar("T", bound=_Answer)


class HttpFacilitator(SettlesOneByOne):
    """A facilitator at a URL; `auth` makes new headers for every call.

    The time-outs are totals: a server that sends a byte a second does not prolong them.
    """

    def __init__(
        self,
        url: str,
        *,
        auth: AuthProvider | None = None,
        verify_timeout_s: float = VERIFY_TIMEOUT_S,
        settle_timeout_s: float = SETTLE_TIMEOUT_S,
    ) -> None:
        self._url = url.rstrip("/")
        self._auth = auth
        self._timeout_s = {"verify": verify_timeout_s, "settle": settle_timeout_s}
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
            follow_redirects=False,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )

    async def verify(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> VerifyResponse:
        """See Facilitator."""
        order = VerifyRequest(
            x402_version=payload.x402_version,
            payment_payload=payload,
            payment_requirements=requirements,
        )
        if (body := _json(order)) is None:
            return VerifyResponse(is_valid=False, invalid_reason=INVALID_PAYLOAD)
        answer = await self._ask("verify", body, _Verified)
        if not answer.approved:
            return VerifyResponse(is_valid=False, invalid_reason=_reason(answer))
        return VerifyResponse(is_valid=True, payer=_payer(answer, payload))

    async def settle(
        self, payload: PaymentPayload, requirements: PaymentRequirements
    ) -> SettleResponse:
        """See Facilitator."""
        order = SettleRequest(
            x402_version=payload.x402_version,
            payment_payload=payload,
            payment_requirements=requirements,
        )
        if (body := _json(order)) is None:
            return _refusal(INVALID_PAYLOAD, requirements)
        answer = await self._ask("settle", body, _Settled)
        if not answer.approved and answer.reason != ERR_SETTLEMENT_PENDING:
            return _refusal(_reason(answer), requirements)
        return SettleResponse(
            success=answer.approved,
            error_reason=None if answer.approved else ERR_SETTLEMENT_PENDING,
            payer=_payer(answer, payload),
            transaction=_transaction(answer, requirements),
            network=requirements.network,
        )

    async def aclose(self) -> None:
        """See Facilitator."""
        await self._http.aclose()

    async def _ask(self, operation: Literal["verify", "settle"], body: str, kind: type[T]) -> T:
        limit_s = self._timeout_s[operation]
        try:
            async with asyncio.timeout(limit_s):
                status, content = await self._post(operation, body)
        except TimeoutError:
            raise _unanswered(f"it took longer than {limit_s:g} seconds") from None
        except httpx.HTTPError as error:
            # Its text may quote what the server sent.
            raise _unanswered(type(error).__name__) from None
        return _read(status, content, kind)

    async def _post(self, operation: Literal["verify", "settle"], body: str) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        if self._auth is not None:
            headers |= getattr(self._auth.get_auth_headers(), operation)
        content = bytearray()
        url = f"{self._url}/{operation}"
        async with self._http.stream("POST", url, content=body, headers=headers) as response:
            # Raw, because a few compressed bytes can unpack to gigabytes.
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise _unanswered(f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
        return response.status_code, bytes(content)


def _json(order: VerifyRequest | SettleRequest) -> str | None:
    try:
        return order.model_dump_json(by_alias=True, exclude_none=True)
    except ValueError:  # nested too deeply to be written
        return None


def _read(status: int, content: bytes, kind: type[T]) -> T:
    """The verdict; facilitators may refuse, but not approve, with a status of 4xx."""
    refusing = httpx.codes.is_client_error(status) and status != httpx.codes.TOO_MANY_REQUESTS
    if status != httpx.codes.OK and not refusing:
        raise _unanswered(f"HTTP status {status}")
    try:
        answer = kind.model_validate(orjson.loads(content))
    except (orjson.JSONDecodeError, ValidationError):
        # Neither error may travel along: both quote the body.
        raise _unanswered(f"no verdict in its answer with HTTP status {status}") from None
    if answer.approved and refusing:
        raise _unanswered(f"it approves with HTTP status {status}")
    if not answer.approved and answer.reason in NO_VERDICT:
        raise _unanswered(answer.reason)
    return answer


def _reason(answer: _Answer) -> str:
    given = answer.reason or ""
    return given if REASON.fullmatch(given) else "unexplained"


def _payer(answer: _Answer, payload: PaymentPayload) -> str:
    authorization = payload.payload.get("authorization")
    payer = str(authorization.get("from")) if isinstance(authorization, dict) else ""
    if answer.payer and answer.payer.lower() != payer.lower():
        raise _unanswered("it is about another payer")
    return payer


def _transaction(answer: _Settled, requirements: PaymentRequirements) -> str:
    transaction, network = answer.transaction or "", answer.network or ""
    if not TRANSACTION_HASH.fullmatch(transaction):
        raise _unanswered("it names no transaction")
    if requirements.network not in (network, f"eip155:{V1_NETWORK_CHAIN_IDS.get(network)}"):
        raise _unanswered("it is about another network")
    return transaction


def _refusal(reason: str, requirements: PaymentRequirements) -> SettleResponse:
    return SettleResponse(
        success=False, error_reason=reason, transaction="", network=requirements.network
    )


def _unanswered(why: str) -> PaymentServiceError:
    return PaymentServiceError(
        f"The facilitator gave no answer that can be used ({why}); the same payment may be sent "
        "again."
    )
