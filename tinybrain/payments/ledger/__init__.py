"""The only writer of money: answers, payments, tabs, purchases, and the journal of them all.

A payment is *claimed → served → settling → settled*; *released* where nothing is collected,
*refunded* where all of it was given back, *debt* where something was delivered and cannot be
collected, *repaid* when another payment paid that. A tab is *opening → open → closing → closed*,
its charges *held → captured* or *released*; a purchase is *reserved → paid* or *released*. Every
transition is a conditional update inside one write transaction, together with its entry in the
journal; one that does not find its row in the expected state raises IllegalTransition.
"""

from sqlalchemy import select

from tinybrain.payments.ledger.answers import Answers
from tinybrain.payments.ledger.part import IllegalTransition
from tinybrain.payments.ledger.purchases import Purchases
from tinybrain.payments.ledger.refunds import Refunds
from tinybrain.payments.ledger.repayments import Repayments
from tinybrain.payments.ledger.settling import Settling
from tinybrain.payments.ledger.tabs import Tabs
from tinybrain.payments.ledger.wallets import TransactionBook, Wallets
from tinybrain.payments.schema import answers

__all__ = ["IllegalTransition", "Ledger", "TransactionBook"]


class Ledger(Answers, Settling, Refunds, Repayments, Tabs, Purchases, Wallets):
    """The money's record, one part a file."""

    async def ping(self) -> None:
        """Prove that the ledger can be read.

        Raises:
            LedgerUnavailable: It cannot.
        """
        async with self._database.read() as connection:
            await connection.execute(select(answers.c.id).limit(1))
