"""Purchases upstream: reserved against every cap before anything is signed, then paid or released.

The sums are read under the write lock, so any number of replicas asking at once cannot overspend
by one unit.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.errors import BudgetExceeded, UpstreamError
from tinybrain.payments.ledger import journal
from tinybrain.payments.ledger.part import NOTE_CHARS, LedgerPart, require_change, values_of
from tinybrain.payments.records import AUDIT, NewPurchase, PurchaseState
from tinybrain.payments.schema import answers, providers, purchases
from tinybrain.usdc import format_usdc

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Purchases(LedgerPart):
    """What the agent buys."""

    async def reserve(self, purchase: NewPurchase, *, pin: bool = True) -> int:
        """Reserve a purchase against the caps and the answer's margin; returns its id.

        With `pin` the provider must be paid to the address that its host was paid to first.

        Raises:
            BudgetExceeded: A cap, or the answer's price, leaves no room for it.
            UpstreamError: The host asks for the money at another address than before.
        """
        now = self.now_ms()
        async with self._database.write() as connection:
            await self._require_margin(connection, purchase)
            await self._require_room(connection, purchase, now)
            if pin:
                await _require_pinned(connection, purchase, now)
            result = await connection.execute(
                insert(purchases).values(
                    **values_of(purchase),
                    state=PurchaseState.RESERVED,
                    final=False,
                    created_ms=now,
                    updated_ms=now,
                )
            )
            return int((result.inserted_primary_key or [0])[0])

    async def signed(self, purchase_id: int, *, nonce: str, valid_before: int) -> None:
        """Note the authorization of a reserved purchase before it is sent.

        Raises:
            IllegalTransition: It is not reserved, or signed: a second one could be paid too.
        """
        async with self._database.write() as connection:
            await require_change(
                connection,
                purchases,
                (purchases.c.id == purchase_id)
                & (purchases.c.state == PurchaseState.RESERVED)
                & purchases.c.nonce.is_(None),
                f"Purchase {purchase_id} is not reserved, or it is signed already.",
                nonce=nonce.lower(),
                valid_before=valid_before,
                updated_ms=self.now_ms(),
            )

    async def paid(self, purchase_id: int, *, transaction: str | None) -> None:
        """Reserved → paid, on the seller's word or the chain's."""
        async with self._database.write() as connection:
            row = await self._become(
                connection, purchase_id, PurchaseState.PAID, transaction=transaction
            )
            await journal.post(
                connection,
                "purchase",
                debit=journal.COST,
                credit=journal.wallet(row.payer),
                amount=row.amount,
                at_ms=self.now_ms(),
                answer_id=row.answer_id or None,
                purchase_id=row.id,
                transaction=transaction,
            )

    async def release_purchase(self, purchase_id: int, *, note: str) -> None:
        """Reserved → released: no money moved, and none can any more."""
        async with self._database.write() as connection:
            await self._become(
                connection, purchase_id, PurchaseState.RELEASED, note=note[:NOTE_CHARS]
            )

    async def unresolved_purchases(self, *, expired_for_s: float) -> Sequence[Row[Any]]:
        """Signed but unconfirmed purchases whose authorization expired that long ago."""
        async with self._database.read() as connection:
            result = await connection.execute(
                select(purchases).where(
                    purchases.c.state == PurchaseState.RESERVED,
                    purchases.c.valid_before < self._clock() - expired_for_s,
                )
            )
            return result.all()

    async def unproven_purchases(self, *, expired_for_s: float) -> Sequence[Row[Any]]:
        """Paid purchases, expired that long ago, of which the chain was not asked yet."""
        async with self._database.read() as connection:
            result = await connection.execute(
                select(purchases).where(
                    purchases.c.final.is_(False),
                    purchases.c.state == PurchaseState.PAID,
                    purchases.c.valid_before < self._clock() - expired_for_s,
                )
            )
            return result.all()

    async def proven(self, purchase_id: int, *, transaction: str) -> None:
        """The chain shows that a paid purchase moved the money, in this transaction."""
        async with self._database.write() as connection:
            await require_change(
                connection,
                purchases,
                _is_paid(purchase_id),
                f"Purchase {purchase_id} is not paid.",
                final=True,
                transaction=transaction,
            )

    async def never_collected(self, purchase_id: int) -> None:
        """Paid → released: the seller said it was paid, and never took the money."""
        now = self.now_ms()
        async with self._database.write() as connection:
            await require_change(
                connection,
                purchases,
                _is_paid(purchase_id),
                f"Purchase {purchase_id} is not paid.",
                state=PurchaseState.RELEASED,
                note="the seller said it was paid, and never took the money",
                transaction=None,
                updated_ms=now,
            )
            query = select(purchases).where(purchases.c.id == purchase_id)
            row = (await connection.execute(query)).one()
            await journal.post(
                connection,
                "reversal",
                debit=journal.wallet(row.payer),
                credit=journal.COST,
                amount=row.amount,
                at_ms=now,
                answer_id=row.answer_id or None,
                purchase_id=row.id,
            )

    async def release_unsigned_purchases(self, *, older_than_s: float) -> None:
        """Release reservations whose process died before it signed anything."""
        unsigned = (
            (purchases.c.state == PurchaseState.RESERVED)
            & purchases.c.nonce.is_(None)
            & (purchases.c.created_ms < self.now_ms() - int(older_than_s * 1000))
        )
        async with self._database.read() as connection:
            if (await connection.execute(select(purchases.c.id).where(unsigned))).first() is None:
                return
        async with self._database.write() as connection:
            await connection.execute(
                update(purchases)
                .where(unsigned)
                .values(
                    state=PurchaseState.RELEASED,
                    updated_ms=self.now_ms(),
                    note="abandoned before it was signed",
                )
            )

    async def _require_margin(self, connection: AsyncConnection, purchase: NewPurchase) -> None:
        price = await connection.scalar(
            select(answers.c.price).where(answers.c.id == purchase.answer_id)
        )
        if not price:  # the operator's own question
            return
        of_answer = purchases.c.answer_id == purchase.answer_id
        cost = await _spent(connection, 0, of_answer) + purchase.amount
        if cost > price - self._limits.margin:
            raise BudgetExceeded(
                f"The answer would cost {format_usdc(cost)}, which leaves less than the "
                f"{format_usdc(self._limits.margin)} of TINYBRAIN_MIN_MARGIN from its price of "
                f"{format_usdc(price)}."
            )

    async def _require_room(
        self, connection: AsyncConnection, purchase: NewPurchase, now: int
    ) -> None:
        of_host = purchases.c.provider == purchase.provider
        caps: list[tuple[str, int, int, ColumnElement[bool] | None]] = [
            ("TINYBRAIN_MAX_COST_PER_HOUR", self._limits.cost_per_hour, HOUR_MS, None),
            ("TINYBRAIN_MAX_COST_PER_DAY", self._limits.cost_per_day, DAY_MS, None),
            ("TINYBRAIN_MAX_COST_PER_PROVIDER", self._limits.cost_per_provider, DAY_MS, of_host),
        ]
        if purchase.is_audit:
            budget = self._limits.audits_per_day
            caps.append(("TINYBRAIN_AUDIT_BUDGET_PER_DAY", budget, DAY_MS, is_audit()))
        for setting, cap, period_ms, which in caps:
            spent = await _spent(connection, now - period_ms, which)
            if spent + purchase.amount > cap:
                raise BudgetExceeded(
                    f"Buying this answer for {format_usdc(purchase.amount)} would exceed the "
                    f"{format_usdc(cap)} that {setting} allows."
                )

    async def _become(
        self,
        connection: AsyncConnection,
        purchase_id: int,
        state: PurchaseState,
        **values: object,
    ) -> Row[Any]:
        await require_change(
            connection,
            purchases,
            (purchases.c.id == purchase_id) & (purchases.c.state == PurchaseState.RESERVED),
            f"Purchase {purchase_id} is not reserved.",
            state=state,
            updated_ms=self.now_ms(),
            **values,
        )
        query = select(purchases).where(purchases.c.id == purchase_id)
        return (await connection.execute(query)).one()


def is_audit() -> ColumnElement[bool]:
    """The purchases that check answers."""
    return purchases.c.answer_id.startswith(AUDIT, autoescape=True)


def _is_paid(purchase_id: int) -> ColumnElement[bool]:
    return (purchases.c.id == purchase_id) & (purchases.c.state == PurchaseState.PAID)


async def _spent(
    connection: AsyncConnection, since_ms: int, which: ColumnElement[bool] | None
) -> int:
    query = select(func.sum(purchases.c.amount)).where(
        purchases.c.state != PurchaseState.RELEASED, purchases.c.created_ms > since_ms
    )
    if which is not None:
        query = query.where(which)
    return int(await connection.scalar(query) or 0)


async def _require_pinned(connection: AsyncConnection, purchase: NewPurchase, now: int) -> None:
    known = await connection.scalar(
        select(providers.c.pay_to).where(
            providers.c.host == purchase.provider, providers.c.network == purchase.network
        )
    )
    if known is None:
        await connection.execute(
            insert(providers).values(
                host=purchase.provider,
                network=purchase.network,
                pay_to=purchase.pay_to,
                created_ms=now,
            )
        )
    elif known != purchase.pay_to:
        raise UpstreamError(
            f"{purchase.provider} asks to be paid at {purchase.pay_to}; so far it was paid at "
            f"{known}. If it has moved, set TINYBRAIN_UPSTREAM_PAY_TO to the new address.",
            code="upstream_payment_terms",
        )
