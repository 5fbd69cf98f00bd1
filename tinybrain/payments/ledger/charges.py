"""What an answer takes from a tab: held while it is worked on, then captured or released."""

from typing import Any

from sqlalchemy import ColumnElement, Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.errors import PaymentConflict, PaymentRequired, TinyBrainError, Unauthorized
from tinybrain.payments.ledger import journal
from tinybrain.payments.ledger.deposits import owe_more
from tinybrain.payments.ledger.part import change, require_change
from tinybrain.payments.records import ChargeState, NewAnswer, TabCharge, TabState
from tinybrain.payments.schema import charges, tabs
from tinybrain.usdc import format_usdc


async def tab_of(connection: AsyncConnection, token_hash: str) -> Row[Any]:
    """The tab of a token.

    Raises:
        Unauthorized: There is none.
    """
    row = (await connection.execute(select(tabs).where(tabs.c.token_hash == token_hash))).first()
    if row is None:
        raise Unauthorized("There is no such tab. Open one with POST /v1/tabs.", code="no_such_tab")
    return row


async def hold(connection: AsyncConnection, tab: TabCharge, answer: NewAnswer, *, now: int) -> None:
    """Take the price of an answer out of a tab's balance, which never falls below zero.

    Raises:
        Unauthorized: There is no such tab, or it is closed.
        PaymentRequired: Its balance is too small.
        PaymentConflict: The idempotency key is used.
    """
    row = await tab_of(connection, tab.token_hash)
    await _free_the_key(connection, row.id, tab.idempotency_key)
    spendable = tabs.c.spendable_until.is_(None) | (tabs.c.spendable_until > now // 1000)
    held = await change(
        connection,
        tabs,
        (tabs.c.id == row.id)
        & (tabs.c.state == TabState.OPEN)
        & (tabs.c.balance >= answer.price)
        & spendable,
        balance=tabs.c.balance - answer.price,
        held=tabs.c.held + answer.price,
        used_ms=now,
    )
    if held != 1:
        raise _refusal(row, answer)
    await connection.execute(
        insert(charges).values(
            answer_id=answer.id,
            tab_id=row.id,
            amount=answer.price,
            state=ChargeState.HELD,
            request_hash=tab.request_hash,
            idempotency_key=tab.idempotency_key,
            created_ms=now,
            updated_ms=now,
        )
    )


async def end_charge(
    connection: AsyncConnection, answer_id: str, *, captured: bool, now: int
) -> None:
    """Capture what an answer holds of a tab, or give it back; nothing if it holds nothing."""
    query = (
        select(charges, tabs.c.payer, tabs.c.state.label("tab_state"))
        .join(tabs, tabs.c.id == charges.c.tab_id)
        .where(charges.c.answer_id == answer_id, charges.c.state == ChargeState.HELD)
    )
    row = (await connection.execute(query)).first()
    if row is None:
        return
    state = ChargeState.CAPTURED if captured else ChargeState.RELEASED
    await require_change(
        connection,
        charges,
        (charges.c.answer_id == answer_id) & (charges.c.state == ChargeState.HELD),
        f"The charge of {answer_id} is not held.",
        state=state,
        updated_ms=now,
    )
    closed = row.tab_state == TabState.CLOSED  # a reorganisation took its deposit away
    left = tabs.c.refunded if closed else tabs.c.balance
    moved = tabs.c.spent if captured else left
    await require_change(
        connection,
        tabs,
        (tabs.c.id == row.tab_id) & (tabs.c.held >= row.amount),
        f"Tab {row.tab_id} holds less than {answer_id} does.",
        **{"held": tabs.c.held - row.amount, moved.name: moved + row.amount, "used_ms": now},
    )
    if captured:
        await journal.post(
            connection,
            "sale",
            debit=journal.payer(row.payer),
            credit=journal.REVENUE,
            amount=row.amount,
            at_ms=now,
            answer_id=answer_id,
            tab_id=row.tab_id,
        )
    if captured and closed:
        await owe_more(connection, row.tab_id, amount=row.amount, now=now)


async def _free_the_key(connection: AsyncConnection, tab_id: str, key: str | None) -> None:
    if key is None:
        return
    same: ColumnElement[bool] = (charges.c.tab_id == tab_id) & (charges.c.idempotency_key == key)
    state = await connection.scalar(select(charges.c.state).where(same))
    if state == ChargeState.RELEASED:  # its answer failed and was not charged: ask again
        await connection.execute(update(charges).where(same).values(idempotency_key=None))
    elif state is not None:
        raise PaymentConflict(
            "This Idempotency-Key is already used on this tab. Use a new one for a new answer.",
            code="idempotency_key_used",
        )


def _refusal(row: Row[Any], answer: NewAnswer) -> TinyBrainError:
    if row.state == TabState.OPENING:
        return PaymentRequired(
            "The tab's deposit is not settled yet. Try again in a moment.", code="tab_opening"
        )
    if row.state == TabState.OPEN and row.balance < answer.price:
        return PaymentRequired(
            f"The tab has {format_usdc(row.balance)} left and the answer costs "
            f"{format_usdc(answer.price)}. Close it and open another.",
            code="tab_exhausted",
        )
    return Unauthorized("The tab is closed. Open another one.", code="tab_closed")
