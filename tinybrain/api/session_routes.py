"""The original's bar tab: POST /api/session/open and /api/session/close.

Field names, statuses and the shape of errors, `{"error": "…"}`, are the original's; `code`,
`tabId`, `priceCents`, `expiresAt`, `spentCents` and `status` are added.
Source: TinyBrain, app/api/session.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tinybrain.api.bounds import parse_body, read_body
from tinybrain.api.credentials import MAX_TOKEN_CHARS
from tinybrain.api.discovery import ORIGINAL_PATH
from tinybrain.api.gateway import Gateway
from tinybrain.api.openai import AUTO_MODEL
from tinybrain.api.original_chat import cents
from tinybrain.api.refused_payments import count_refused
from tinybrain.errors import PaymentRequired, TinyBrainError
from tinybrain.payments.tab_accounts import TabAccount
from tinybrain.payments.wire import Address, Authorization

Handler = Callable[[Request], Awaitable[Response]]


class _CamelCase(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class _Signed(BaseModel):
    authorization: Authorization
    signature: str = Field(pattern=r"^0x[0-9a-fA-F]{130}$")


class _Open(_CamelCase):
    wallet_address: Address
    deposit_auth: _Signed


class _Close(_CamelCase):
    session_token: str = Field(min_length=1, max_length=MAX_TOKEN_CHARS)
    settlement_auth: _Signed | None = None


def _original_errors(handler: Handler) -> Handler:
    @wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except TinyBrainError as error:
            headers = {"Cache-Control": "no-store"}
            body = {"error": error.message, "code": error.code}
            return JSONResponse(body, status_code=_status(error), headers=headers)

    return answer


@_original_errors
async def open_session(request: Request) -> Response:
    """POST /api/session/open: opens a tab on a deposit that the wallet has signed."""
    gateway: Gateway = request.app.state.gateway
    body = parse_body(_Open, await read_body(request))
    with count_refused(request):
        tab = await gateway.bar_tabs.open(
            body.wallet_address, body.deposit_auth.authorization, body.deposit_auth.signature
        )
    price = gateway.prices.product(ORIGINAL_PATH, AUTO_MODEL).price
    return _private(
        {
            "sessionToken": tab.token,
            "depositCents": cents(tab.deposit),
            "maxQueries": tab.deposit // price if price else None,
            "priceCents": cents(price),
            "expiresAt": tab.spendable_until,
            "tabId": tab.id,
        }
    )


@_original_errors
async def close_session(request: Request) -> Response:
    """POST /api/session/close: closes the tab; tells the same when repeated."""
    gateway: Gateway = request.app.state.gateway
    body = parse_body(_Close, await read_body(request))
    signed = body.settlement_auth
    with count_refused(request):
        account = await gateway.bar_tabs.close(
            body.session_token,
            None if signed is None else (signed.authorization, signed.signature),
        )
    collected = account.collected
    return _private(
        {
            "settlementTx": collected.transaction if collected else None,
            "status": _status_of(account),
            "spentCents": cents(account.tab.spent),
        }
    )


def _status_of(account: TabAccount) -> str:
    if account.collected is not None:
        return "settled"
    return "settling" if account.under_way is not None else "closed"


def _status(error: TinyBrainError) -> int:
    """401 for a wrong signature, 400 for any other payment that does not do."""
    if not isinstance(error, PaymentRequired):
        return error.status
    return 401 if error.code == "payment_invalid_signature" else 400


def _private(body: dict[str, Any]) -> Response:
    return JSONResponse(body, headers={"Cache-Control": "private, no-store"})
