"""What the ledger tells of a tab: its account, and the payments it is made of. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, select

from tinybrain.payments.database import Database
from tinybrain.payments.ledger.charges import tab_of
from tinybrain.payments.records import ChargeState, PaymentState, Purpose
from tinybrain.payments.schema import charges, payments

COLLECTED = (PaymentState.SETTLED, PaymentState.REFUNDED)
UNDER_WAY = (PaymentState.SERVED, PaymentState.SETTLING)


@dataclass(frozen=True, slots=True)
class TabAccount:
    """A tab at one moment, its payments in the order in which they were made."""

    tab: Row[Any]
    payments: Sequence[Row[Any]]
    answers: int  # that were charged

    @property
    def collected(self) -> Row[Any] | None:
        """The caller's payment that arrived: the deposit, or what settled a bar tab."""
        return self._find(Purpose.TAB, *COLLECTED)

    @property
    def refund(self) -> Row[Any] | None:
        """What is given back, sent or not yet."""
        return self._find(Purpose.REFUND, *UNDER_WAY, PaymentState.SETTLED)

    @property
    def under_way(self) -> Row[Any] | None:
        """The payment that the tab waits for."""
        return self._find(Purpose.TAB, *UNDER_WAY) or self._find(Purpose.REFUND, *UNDER_WAY)

    def _find(self, purpose: Purpose, *states: PaymentState) -> Row[Any] | None:
        found = (row for row in self.payments if row.purpose == purpose and row.state in states)
        return next(found, None)


class TabAccounts:
    """Reads the accounts of tabs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def account(self, token_hash: str) -> TabAccount:
        """The account of a token's tab.

        Raises:
            Unauthorized: There is no such tab.
        """
        async with self._database.read() as connection:
            tab = await tab_of(connection, token_hash)
            paid = select(payments).where(payments.c.tab_id == tab.id).order_by(payments.c.id)
            charged = (
                select(func.count())
                .select_from(charges)
                .where(charges.c.tab_id == tab.id, charges.c.state == ChargeState.CAPTURED)
            )
            return TabAccount(
                tab,
                (await connection.execute(paid)).all(),
                int(await connection.scalar(charged) or 0),
            )
