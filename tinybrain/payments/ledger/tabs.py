"""Tabs: one payment for many answers. The account is kept here, never by the caller."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Row, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.errors import PaymentConflict, TooManyUnsettled
from tinybrain.payments.ledger.charges import tab_of
from tinybrain.payments.ledger.claims import Claims, claim, require_trust
from tinybrain.payments.ledger.deposits import close, collect_deposit, release_deposit
from tinybrain.payments.ledger.part import IllegalTransition, change, require_change
from tinybrain.payments.ledger.refunds import refund
from tinybrain.payments.records import (
    ChargeState,
    NewPayment,
    NewTab,
    PaymentState,
    Purpose,
    Recorded,
    TabCharge,
    TabState,
)
from tinybrain.payments.schema import answers, charges, payments, replies, tabs
from tinybrain.usdc import format_usdc

RETRY_MS = 900_000  # OpenAI's SDKs wait up to ten minutes for an answer before they ask again


class Tabs(Claims):
    """The life of a tab; its charges are in `charges.py`, its money's arrival in `deposits.py`."""

    async def open_tab(
        self, tab: NewTab, deposit: NewPayment, *, spendable_until: int | None = None
    ) -> int:
        """Open a tab and claim its deposit; returns the payment's id.

        A bar tab may be spent from at once, until the Unix second `spendable_until`; a prepaid
        one once its deposit is settled.

        Raises:
            PaymentConflict, DebtOwed, TooManyUnsettled: The deposit may not be taken, or the
                payer has an open bar tab, or is not trusted with one yet.
        """
        now, bar = self.now_ms(), tab.kind == "bar"
        deposit = replace(deposit, purpose=Purpose.TAB, flow="authorization" if bar else "upfront")
        async with self._database.write() as connection:
            if bar:
                await _require_no_other(connection, deposit.payer)
                await require_trust(connection, deposit.payer, self._limits)
            payment_id, _ = await claim(
                connection, deposit, now=now, limits=self._limits, tab_id=tab.id
            )
            await connection.execute(
                insert(tabs).values(
                    id=tab.id,
                    token_hash=tab.token_hash,
                    kind=tab.kind,
                    state=TabState.OPEN if bar else TabState.OPENING,
                    payer=deposit.payer,
                    payment_id=payment_id,
                    deposit=deposit.amount,
                    balance=deposit.amount,
                    held=0,
                    spent=0,
                    refunded=0,
                    spendable_until=spendable_until,
                    created_ms=now,
                    used_ms=now,
                )
            )
        return payment_id

    async def tab(self, token_hash: str) -> Row[Any]:
        """The tab of a token.

        Raises:
            Unauthorized: There is none.
        """
        async with self._database.read() as connection:
            return await tab_of(connection, token_hash)

    async def tab_by_id(self, tab_id: str) -> Row[Any] | None:
        """A tab."""
        async with self._database.read() as connection:
            return (await connection.execute(select(tabs).where(tabs.c.id == tab_id))).first()

    async def charged_before(self, tab: TabCharge) -> Recorded | None:
        """The answer that was charged to a tab under the same idempotency key.

        Without a key, the newest one to the same request in the last minutes.

        Raises:
            PaymentConflict: The key was used for another request.
        """
        query = (
            select(charges.c.request_hash, answers.c.id, answers.c.outcome, replies.c.body)
            .join(tabs, tabs.c.id == charges.c.tab_id)
            .join(answers, answers.c.id == charges.c.answer_id)
            .outerjoin(replies, replies.c.id == answers.c.id)
            .where(
                tabs.c.token_hash == tab.token_hash,
                self._same(tab),
                charges.c.state != ChargeState.RELEASED,
            )
            .order_by(charges.c.created_ms.desc())
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            return None
        if row.request_hash != tab.request_hash:
            raise PaymentConflict(
                "This Idempotency-Key was used for another request. Use a new one.",
                code="idempotency_key_used",
            )
        return Recorded(row.id, row.outcome, row.body)

    def _same(self, tab: TabCharge) -> ColumnElement[bool]:
        if tab.idempotency_key is not None:
            return charges.c.idempotency_key == tab.idempotency_key
        recent = charges.c.created_ms >= self.now_ms() - RETRY_MS
        return (charges.c.request_hash == tab.request_hash) & recent

    async def keep_reply(self, tab_id: str, body: dict[str, Any]) -> None:
        """Keep what the opener of a tab was told, for a repeated request."""
        async with self._database.write() as connection:
            await connection.execute(
                insert(replies).values(id=tab_id, body=body, created_ms=self.now_ms())
            )

    async def reply_of(self, subject: str) -> dict[str, Any] | None:
        """What was answered, if it is still kept."""
        async with self._database.read() as connection:
            body: dict[str, Any] | None = await connection.scalar(
                select(replies.c.body).where(replies.c.id == subject)
            )
            return body

    async def stop_tab(self, tab_id: str) -> None:
        """Begin no more answers on an open tab; it is closed once those under way have ended."""
        async with self._database.write() as connection:
            open_tab = (tabs.c.id == tab_id) & (tabs.c.state == TabState.OPEN)
            await change(connection, tabs, open_tab, spendable_until=0)

    async def close_tab(self, tab_id: str, settlement: NewPayment | None = None) -> Row[Any]:
        """Ask no more of a tab, and set what it takes to settle or refund it in motion.

        `settlement` is a bar tab's payment of exactly what was used; without it the deposit is
        settled and the rest refunded. Closing a closed tab changes nothing.

        Returns:
            The tab as it is now.

        Raises:
            PaymentConflict: Answers are under way, or the settlement is not for what was used.
            IllegalTransition: Somebody else closes it at this moment.
        """
        now = self.now_ms()
        async with self._database.write() as connection:
            row = (await connection.execute(select(tabs).where(tabs.c.id == tab_id))).one()
            if row.state in (TabState.OPEN, TabState.OPENING):
                _check_close(row, settlement)
                await _set_closing(connection, row)
                if row.kind == "prepaid":
                    await self._close_prepaid(connection, row, now)
                else:
                    await self._close_bar(connection, row, settlement, now)
            return (await connection.execute(select(tabs).where(tabs.c.id == tab_id))).one()

    async def idle_tabs(self, *, bar_idle_s: float, prepaid_idle_s: float) -> Sequence[str]:
        """Tabs to close: unused for too long, or no longer spendable; none with answers running."""
        now = self.now_ms()
        bar = (tabs.c.kind == "bar") & or_(
            tabs.c.used_ms < now - int(bar_idle_s * 1000), tabs.c.spendable_until <= now // 1000
        )
        prepaid = (tabs.c.kind == "prepaid") & (tabs.c.used_ms < now - int(prepaid_idle_s * 1000))
        query = select(tabs.c.id).where(
            tabs.c.state == TabState.OPEN, tabs.c.held == 0, or_(bar, prepaid)
        )
        async with self._database.read() as connection:
            return (await connection.scalars(query)).all()

    async def open_bar_tabs(self) -> Sequence[Row[Any]]:
        """Bar tabs whose payers' balances are to be watched."""
        query = select(tabs).where(tabs.c.state == TabState.OPEN, tabs.c.kind == "bar")
        async with self._database.read() as connection:
            return (await connection.execute(query)).all()

    async def _close_prepaid(self, connection: AsyncConnection, row: Row[Any], now: int) -> None:
        deposit = (
            await connection.execute(select(payments).where(payments.c.id == row.payment_id))
        ).one()
        if await refund(connection, deposit, amount=row.balance, now=now) is None:
            await close(connection, row)

    async def _close_bar(
        self, connection: AsyncConnection, row: Row[Any], settlement: NewPayment | None, now: int
    ) -> None:
        if row.spent == 0:
            await release_deposit(connection, row, now=now)
            await close(connection, row)
        elif settlement is None:
            if not await collect_deposit(connection, row, now=now):
                raise IllegalTransition(f"The deposit of tab {row.id} is not claimed.")
        else:
            settlement = replace(settlement, purpose=Purpose.TAB, flow="authorization")
            settlement_id, _ = await claim(
                connection, settlement, now=now, limits=None, tab_id=row.id
            )
            await connection.execute(
                update(payments)
                .where(payments.c.id == settlement_id)
                .values(state=PaymentState.SERVED)
            )
            await connection.execute(
                update(tabs).where(tabs.c.id == row.id).values(settlement_id=settlement_id)
            )


def _check_close(row: Row[Any], settlement: NewPayment | None) -> None:
    if row.held:
        raise PaymentConflict(
            "Answers are still under way on this tab. Wait for them, then close it.",
            code="tab_busy",
        )
    if row.state == TabState.OPENING:
        raise PaymentConflict(
            "The tab's deposit is not settled yet. Try again in a moment.", code="tab_opening"
        )
    if settlement is not None and settlement.payer != row.payer:
        raise PaymentConflict(
            f"The tab belongs to {row.payer}, and the settlement is signed by another wallet.",
            code="tab_payer_mismatch",
        )
    if settlement is not None and settlement.amount != row.spent:
        raise PaymentConflict(
            f"The tab was used for {format_usdc(row.spent)} ({row.spent} atomic units), and the "
            f"settlement is signed for {format_usdc(settlement.amount)}. Sign one for exactly "
            "what was used, or close without one: the deposit is settled and the rest refunded.",
            code="tab_amount_mismatch",
        )


async def _set_closing(connection: AsyncConnection, row: Row[Any]) -> None:
    await require_change(
        connection,
        tabs,
        (tabs.c.id == row.id) & (tabs.c.state == TabState.OPEN) & (tabs.c.held == 0),
        f"Tab {row.id} is not open.",
        state=TabState.CLOSING,
    )


async def _require_no_other(connection: AsyncConnection, payer: str) -> None:
    other = select(tabs.c.id).where(
        tabs.c.payer == payer,
        tabs.c.kind == "bar",
        tabs.c.state.in_([TabState.OPEN, TabState.CLOSING]),
    )
    if (await connection.execute(other)).first() is not None:
        raise TooManyUnsettled("This wallet has an open bar tab. Close it before opening another.")
