"""Ways to every state of a payment, and a reader of the journal."""

import asyncio

import pytest
from sqlalchemy import select

from tinybrain.payments.database import Database
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.records import AnswerRecord, Charge, Collected, Limits, NewTab, TabCharge
from tinybrain.payments.schema import entries, metadata

COMPLETED = AnswerRecord("completed", answered_by="tinychat", model="tinychat")
FAILED = AnswerRecord("failed", error="it broke")


class Books:
    """Reads the database beside the ledger."""

    def __init__(self, database):
        self._database = database

    async def rows(self, table, *where):
        async with self._database.read() as connection:
            query = select(table).where(*where).order_by(*table.primary_key)
            return (await connection.execute(query)).all()

    async def everything(self):
        return {table.name: await self.rows(table) for table in metadata.sorted_tables}

    async def journal(self):
        """Kind, debit, credit and amount of every entry."""
        rows = await self.rows(entries)
        return [(row.kind, row.debit, row.credit, row.amount) for row in rows]

    async def account(self, name):
        rows = await self.rows(entries)
        return sum(row.amount for row in rows if row.debit == name) - sum(
            row.amount for row in rows if row.credit == name
        )


class Walks:
    """Takes payments through the ledger's states; each returns the payment's id."""

    def __init__(self, ledger, new_answer, new_payment):
        self._ledger, self._new_answer, self._new_payment = ledger, new_answer, new_payment

    async def complete(self, number=1, **reply):
        return await self._end(number, COMPLETED, Charge.YES, **reply)

    async def fail(self, number=1):
        return await self._end(number, FAILED, Charge.NO)

    async def _end(self, number, record, charge, **reply):
        answer = self._new_answer(number).id
        return await self._ledger.finish(answer, record, charge=charge, **reply)

    async def claimed(self, number=1, **changes):
        answer = self._new_answer(number)
        await self._ledger.begin(answer, self._new_payment(number, **changes))
        return (await self._ledger.payment_of(answer.id)).id

    async def served(self, number=1, **changes):
        payment = await self.claimed(number, **changes)
        await self.complete(number)
        return payment

    async def settling(self, number=1, **changes):
        payment = await self.served(number, **changes)
        assert await self._ledger.take([payment]) == {payment}
        return payment

    async def settled(self, number=1, **changes):
        payment = await self.settling(number, **changes)
        await self.collect(payment)
        return payment

    async def released(self, number=1, **changes):
        payment = await self.claimed(number, **changes)
        await self.fail(number)
        return payment

    async def upfront(self, number=1, **changes):
        """Settled before the work, which goes on."""
        payment = await self.claimed(number, flow="upfront", **changes)
        await self.collect(payment)
        return payment

    async def refunding(self, number=1):
        """Settled upfront, and the answer failed: the refund waits."""
        payment = await self.upfront(number)
        await self.fail(number)
        return payment

    async def refunded(self, number=1):
        payment = await self.refunding(number)
        await self.collect((await self._ledger.due_payments())[0].id)
        return payment

    async def debt(self, number=1, **changes):
        payment = await self.settling(number, **changes)
        await self._ledger.uncollectable(payment, "cancelled")
        return payment

    async def repaid(self, number=1):
        payment = await self.debt(number)
        await self.repay(number)
        return payment

    async def repay(self, number=1, *, amount=10_000, **changes):
        """Settles a payment for the debts of the usual payer; returns its id."""
        payment = self._new_payment(number + 1_000, amount=amount, **changes)
        repayment = await self._ledger.repay(payment, debtor="0x" + "b" * 40)
        await self.collect(repayment)
        return repayment

    async def collect(self, payment):
        """The chain shows its transfer."""
        await self._ledger.take([payment])
        await self._ledger.settled([Collected(payment, f"0x{payment:064x}", 7)])

    async def lose(self, payment):
        """The chain shows that it will never be collected; returns what it becomes."""
        await self._ledger.take([payment])
        return await self._ledger.uncollectable(payment, "cancelled")

    async def state(self, payment):
        return (await self._ledger.payment(payment)).state


class TabWalks:
    """Opens tabs and asks questions on them; a tab is named by its kind and number."""

    def __init__(self, ledger, walks, new_answer, new_payment):
        self._ledger, self._walks = ledger, walks
        self._new_answer, self._new_payment = new_answer, new_payment

    async def opened(self, kind="bar", number=1, *, deposit=50_000, **changes):
        """An open tab's row; a prepaid one's deposit is settled."""
        tab = f"tab_{kind}_{number}"
        payment = self._new_payment(number + 2_000, amount=deposit, purpose="tab", **changes)
        payment_id = await self._ledger.open_tab(NewTab(tab, f"hash of {tab}", kind), payment)
        if kind == "prepaid":
            await self._walks.collect(payment_id)
        return await self._ledger.tab_by_id(tab)

    async def ask(self, tab, number=1, **changes):
        """Begins an answer that the tab pays for; returns its id."""
        answer = self._new_answer(number, credential="tab")
        await self._ledger.begin(answer, tab=TabCharge(tab.token_hash, "0" * 64, **changes))
        return answer.id

    async def spend(self, tab, number=1):
        """An answer charged to the tab."""
        answer = await self.ask(tab, number)
        await self._walks.complete(number)
        return answer

    async def now(self, tab):
        return await self._ledger.tab_by_id(tab.id)


@pytest.fixture
def books(database):
    return Books(database)


@pytest.fixture
def walks(ledger, new_answer, new_payment):
    return Walks(ledger, new_answer, new_payment)


@pytest.fixture
def tab_walks(ledger, walks, new_answer, new_payment):
    return TabWalks(ledger, walks, new_answer, new_payment)


@pytest.fixture
async def two_ledgers(database_url, database, clock):
    """Builds the ledgers of two processes: one database, a connection pool each."""
    databases = [database, await Database.open(database_url)]

    def build(**limits):
        return [Ledger(each, clock=clock, limits=Limits(**limits)) for each in databases]

    yield build
    await databases[1].close()


@pytest.fixture
def race():
    """Runs coroutines at once; returns what each returned or raised."""

    async def run(coroutines):
        return await asyncio.gather(*coroutines, return_exceptions=True)

    return run
