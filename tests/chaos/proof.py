"""What must hold when the load is over: looked up in the ledger, on the chain, and by asking again.

A row may still be open if it waits for a time that has not come, of which nobody but the clock
can release it; whoever it belongs to is judged in a later round.
"""

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from sqlalchemy import or_, select

from tests.chaos.world import ANSWER_TIMEOUT_S, TAB_IDLE_S, WALLET_USDC
from tinybrain.config import SETTLE_MARGIN_S
from tinybrain.payments.attempts import CLOCK_MARGIN_S
from tinybrain.payments.audit import Token, audit
from tinybrain.payments.chain import Chain
from tinybrain.payments.database import Database
from tinybrain.payments.records import (
    UNSETTLED,
    ChargeState,
    PaymentState,
    PurchaseState,
    Purpose,
    TabState,
)
from tinybrain.payments.rpc import Rpc
from tinybrain.payments.schema import answers, charges, payments, purchases, tabs

TIDY_S = 10  # between two rounds of housekeeping
GRACE_S = 20  # for work that is due, on a busy machine
ABANDONED_S = ANSWER_TIMEOUT_S + SETTLE_MARGIN_S
POLL_S = 0.5


@dataclass(frozen=True)
class OpenRow:
    """A row that is not final, whose it is, and by when (Unix seconds) it has to be."""

    subject: str
    state: str
    payer: str | None
    final_by: float

    def __str__(self):
        return f"{self.subject} is {self.state}, {time.time() - self.final_by:+.0f} s overdue"


class Proof:
    """Reads the books of a world."""

    def __init__(self, world, http, database, rpc):
        self._world = world
        self._http = http
        self._database = database
        self._settings = world.settings
        self.chain = Chain(rpc, self._settings.token.address)

    # --- what is not final

    async def drained(self, *, wait_s):
        """Wait until every row is final, or waits for its time; returns those."""
        deadline = time.monotonic() + wait_s
        while rows := await self.open_rows():
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(POLL_S)
        return rows

    async def open_rows(self):
        """Every row that is not final."""
        async with self._database.read() as connection:

            async def read(table, *where):
                return (await connection.execute(select(table).where(*where))).all()

            rows = [
                OpenRow(f"answer {row.id}", row.outcome, None, _abandoned(row))
                for row in await read(answers, answers.c.outcome == "running")
            ]
            for row in await read(payments, payments.c.state.in_(UNSETTLED)):
                waits = row.state == PaymentState.CLAIMED and row.flow == "authorization"
                if not waits:  # else for its answer or its tab
                    payer = row.pay_to if row.purpose == Purpose.REFUND else row.payer
                    final_by = row.due_ms / 1000 + GRACE_S
                    rows.append(OpenRow(f"{row.purpose} {row.id}", row.state, payer, final_by))
            for row in await read(tabs, or_(tabs.c.state != TabState.CLOSED, tabs.c.held > 0)):
                final_by = row.used_ms / 1000 + TAB_IDLE_S + ABANDONED_S + TIDY_S + GRACE_S
                rows.append(OpenRow(f"tab {row.id}", row.state, row.payer, final_by))
            for row in await read(purchases, purchases.c.state == PurchaseState.RESERVED):
                expires = row.valid_before and row.valid_before + CLOCK_MARGIN_S + TIDY_S + GRACE_S
                final_by = expires or _abandoned(row)
                rows.append(OpenRow(f"purchase {row.id}", row.state, None, final_by))
            running = {row.subject.partition(" ")[2] for row in rows if row.state == "running"}
            by_answer = payments.c.answer_id.in_(running)
            for row in await read(payments, by_answer):
                rows.append(OpenRow(f"payment {row.id}", row.state, row.payer, float("inf")))
        return rows

    # --- one caller

    async def faults_of(self, caller):
        """What is wrong with a caller all of whose rows are final; empty if nothing is."""
        faults = []
        receipts = [await self._receipt(answer_id) for answer_id in await self._bought(caller)]
        charged = {receipt["id"]: receipt["charged"] for receipt in receipts}
        lost = WALLET_USDC - await self.chain.balance(caller.address)
        if lost != sum(charged.values()):
            faults.append(f"lost {lost}, was charged {charged}")
        for question in caller.questions:
            faults += await self._faults_of(caller, question, charged)
        unknown = {key for key, amount in charged.items() if amount} - {
            answer_id for question in caller.questions for answer_id in question.answers
        }
        partly = {answer_id for question in caller.questions for answer_id in question.partly}
        aborted = {receipt["id"] for receipt in receipts if receipt["outcome"] == "aborted"}
        if unknown - (partly & aborted):
            faults.append(f"paid for answers that nothing brings: {unknown}")
        return [f"{caller.behaviour.__name__} {caller.address} {fault}" for fault in faults]

    async def _faults_of(self, caller, question, charged):
        if question.price and not question.answers and any(charged.values()):
            await self._fetch_again(caller, question, charged)
        ids, texts = set(question.answers), set().union(*question.answers.values())
        if question.price and (len(ids) > 1 or len(texts) > 1):
            return [f"got several answers for one payment: {question.answers}"]
        if question.price and any(not charged.get(answer_id) for answer_id in ids):
            return [f"got {ids} for nothing"]
        return []

    async def _fetch_again(self, caller, question, charged):
        """Ask once more with the same payment; only where that cannot buy anything new."""
        if await self._is_spent(caller, question, charged):
            await caller.send(question)

    async def _is_spent(self, caller, question, charged):
        """Whether what pays for the question has bought an answer."""
        ...

    async def _bought(self, caller):
        """Every answer that this caller's payments and tabs were claimed for."""
        of_tabs = (
            select(charges.c.answer_id)
            .join(tabs, tabs.c.id == charges.c.tab_id)
            .where(tabs.c.payer == caller.address)
        )
        of_payments = select(payments.c.answer_id).where(
            payments.c.payer == caller.address, payments.c.purpose == Purpose.ANSWER
        )
        async with self._database.read() as connection:
            return [
                *(await connection.scalars(of_tabs)).all(),
                *(await connection.scalars(of_payments)).all(),
            ]
