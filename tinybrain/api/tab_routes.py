"""Prepaid tabs: POST /v1/tabs, and GET and DELETE /v1/tabs/{id} for who has the tab's token."""

from typing import Any

from pydantic import BaseModel
from sqlalchemy import Row
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tinybrain.api.admission import hash_request
from tinybrain.api.bounds import parse_body, read_body
from tinybrain.api.credentials import read_credentials, read_tab_token
from tinybrain.api.gateway import Gateway
from tinybrain.api.refused_payments import count_refused
from tinybrain.api.tab_office import TABS_PATH, OpenedTab
from tinybrain.errors import InvalidRequest, Unauthorized
from tinybrain.payments.records import PaymentState
from tinybrain.payments.tab_accounts import TabAccount
from tinybrain.payments.wire import PaymentHeader, settlement_headers
from tinybrain.usdc import Usdc, parse_usdc, plain_usdc

AMOUNTS = ("deposit", "balance", "held", "spent", "refunded")
PRIVATE = {"Cache-Control": "private, no-store"}


class _Body(BaseModel):
    deposit: str


async def open_tab(request: Request) -> Response:
    """POST /v1/tabs: opens a tab with `{"deposit": "0.50"}`, paid upfront over x402.

    201 with the tab and its token; 202 while its deposit is on its way.
    """
    gateway: Gateway = request.app.state.gateway
    gateway.tabs.require_offered()
    body = await read_body(request)
    product = gateway.tabs.product(_deposit(body))
    request.state.product = product  # a 402 tells its terms
    credentials = read_credentials(request, behind_proxy=gateway.settings.behind_proxy)
    if credentials.payment is None:
        raise gateway.merchant.required(product)
    key = credentials.idempotency_key
    with count_refused(request):
        opened = await gateway.tabs.open_prepaid(
            credentials.payment,
            product,
            request_hash=hash_request(TABS_PATH, body, key=key),
            keyed=key is not None,
        )
    account = await gateway.tabs.account(opened.token)
    return JSONResponse(
        tab_body(account) | {"token": opened.token},
        status_code=201 if opened.outcome else 202,
        headers=PRIVATE | _payment_response(credentials.payment, opened),
    )


async def show_tab(request: Request) -> Response:
    """GET /v1/tabs/{id}: the tab's account."""
    return JSONResponse(tab_body(await _own_account(request)), headers=PRIVATE)


async def close_tab(request: Request) -> Response:
    """DELETE /v1/tabs/{id}: closes the tab and refunds the rest; tells the same when repeated."""
    gateway: Gateway = request.app.state.gateway
    account = await gateway.tabs.close(await _own_account(request))
    return JSONResponse(tab_body(account), headers=PRIVATE)


def tab_body(account: TabAccount) -> dict[str, Any]:
    """A tab in JSON: amounts in dollars, and in atomic USDC under `…_atomic`."""
    tab = account.tab
    amounts: dict[str, Any] = {}
    for name in AMOUNTS:
        amount = getattr(tab, name)
        amounts |= {name: plain_usdc(amount), f"{name}_atomic": amount}
    return {
        "id": tab.id,
        "object": "tab",
        "kind": tab.kind,
        "state": tab.state,
        "created": tab.created_ms // 1000,
        "spendable_until": tab.spendable_until,
        "answers": account.answers,
        **amounts,
        "refund": _refund(account.refund),
        "note": tab.note,
    }


def _refund(row: Row[Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "state": "settled" if row.state == PaymentState.SETTLED else "pending",
        "amount": plain_usdc(row.amount),
        "transaction": row.transaction,
    }


async def _own_account(request: Request) -> TabAccount:
    """The tab of the path, for who has its token; nobody else learns whether there is one."""
    gateway: Gateway = request.app.state.gateway
    token = read_tab_token(request)
    if token is None:
        raise Unauthorized(
            "Send the tab's token as Authorization: Bearer, or as X-SESSION-TOKEN.",
            code="no_tab_token",
        )
    account = await gateway.tabs.account(token)
    if account.tab.id != request.path_params["tab_id"]:
        raise Unauthorized("The token is not this tab's.", code="no_such_tab")
    return account


def _deposit(body: bytes) -> Usdc:
    try:
        return parse_usdc(parse_body(_Body, body).deposit)
    except ValueError as error:
        raise InvalidRequest(f"deposit: {error}.", param="deposit") from None


def _payment_response(header: PaymentHeader, opened: OpenedTab) -> dict[str, str]:
    if opened.outcome is None:
        return {}
    return settlement_headers(header.version, opened.payment, opened.outcome.transaction)
