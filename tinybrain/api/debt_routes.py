"""Debts: GET /v1/debts/{address} tells what a payer owes, POST takes the payment for it.

Anyone may pay; the payer is served again at once. Both routes are open: what is owed, and since
when, can be worked out from the chain as well.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tinybrain.api.admission import hash_request
from tinybrain.api.gateway import Gateway
from tinybrain.api.refused_payments import count_refused
from tinybrain.config import ADDRESS
from tinybrain.errors import InvalidRequest, PaymentConflict, PaymentPending, PaymentRequired
from tinybrain.payments.collecting import collect, require_collected
from tinybrain.payments.pricing import Product
from tinybrain.payments.records import NewPayment, Purpose
from tinybrain.payments.wire import PaymentHeader, read_payment, settlement_headers
from tinybrain.usdc import Usdc, format_usdc, plain_usdc

WAIT_S = 20.0


async def show_debts(request: Request) -> Response:
    """GET /v1/debts/{address}: what a payer owes, and for what."""
    return await _statement(request, _debtor(request))


async def pay_debts(request: Request) -> Response:
    """POST /v1/debts/{address}: pays exactly what is owed, upfront over x402."""
    gateway: Gateway = request.app.state.gateway
    debtor = _debtor(request)
    header = read_payment(request.headers.getlist)
    owed = _sum(await gateway.ledger.debts(debtor))
    request.state.product = _product(debtor, owed)  # a 402 tells its terms
    if header is None:
        if owed:
            raise gateway.merchant.required(request.state.product)
        return await _statement(request, debtor)
    with count_refused(request):
        payment = gateway.merchant.identify(
            header,
            _product(debtor, Usdc(header.authorization.value)),
            request_hash=hash_request(request.state.product.path, b"", key=None),
            purpose=Purpose.DEBT,
        )
        payment_id = await _claim(gateway, payment, debtor, owed)
        if payment_id is None:
            return await _statement(request, debtor)
        headers = await _collect(gateway, payment_id, payment, header)
    return await _statement(request, debtor, headers)


async def _claim(gateway: Gateway, payment: NewPayment, debtor: str, owed: Usdc) -> int | None:
    """The payment's id, new or sent before; None if it has nothing to pay."""
    seen = await gateway.ledger.require_unclaimed(payment)
    if seen is not None:
        return int(seen.id)
    if not owed:
        return None
    if payment.amount != owed:
        raise PaymentRequired(
            f"{debtor} owes {format_usdc(owed)}, and the payment is for "
            f"{format_usdc(payment.amount)}. Sign one for exactly what is owed.",
            code="payment_invalid",
        )
    await gateway.merchant.verify(payment)
    try:
        return await gateway.ledger.repay(payment, debtor=debtor)
    except PaymentConflict:
        twin = await gateway.ledger.require_unclaimed(payment)
        if twin is None:
            raise
        return int(twin.id)


async def _collect(
    gateway: Gateway, payment_id: int, payment: NewPayment, header: PaymentHeader
) -> dict[str, str]:
    outcome = await collect(gateway.settle_payment, payment_id, wait_s=WAIT_S)
    if outcome is None:
        raise PaymentPending(
            "The payment is on its way and its outcome is not known yet. Send the same request "
            "with the same payment again."
        )
    require_collected(outcome)
    return settlement_headers(header.version, payment, outcome.transaction)


async def _statement(
    request: Request, debtor: str, headers: dict[str, str] | None = None
) -> Response:
    gateway: Gateway = request.app.state.gateway
    rows = await gateway.ledger.debts(debtor)
    owed = _sum(rows)
    return JSONResponse(
        {
            "address": debtor,
            "owed": plain_usdc(owed),
            "owed_atomic": owed,
            "payments": [
                {
                    "amount": plain_usdc(row.owed),
                    "since": datetime.fromtimestamp(row.claimed_ms // 1000, UTC).isoformat(),
                    "note": row.note,
                }
                for row in rows
            ],
        },
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def _debtor(request: Request) -> str:
    address: str = request.path_params["address"]
    if not ADDRESS.fullmatch(address):
        raise InvalidRequest(
            "Name a wallet in the path: /v1/debts/0x and 40 hexadecimal digits.", param="address"
        )
    return address.lower()


def _product(debtor: str, owed: Usdc) -> Product:
    return Product(f"/v1/debts/{debtor}", f"What {debtor} owes", owed, "upfront")


def _sum(rows: list[Row[Any]]) -> Usdc:
    return Usdc(sum(row.owed for row in rows))
