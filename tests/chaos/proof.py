"""What must hold when the load is over: looked up in the ledger, on the chain, and by asking again.

A row may still be open if it waits for a time that has not come, of which nobody but the clock
can release it; whoever it belongs to is judged in a later round.
"""

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from sqlalchemy import func, or_, select

from tests.chaos.world import WALLET_USDC
from tinybrain.config import SETTLE_MARGIN_S
from tinybrain.payments.audit import Token, audit
from tinybrain.payments.chain import EXPIRY_MARGIN_S, Chain
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
POLL_S = 0.5
REPLY_TIMEOUT_S = 180  # a copy waits for an answer's whole time, and for its settlement
UNLIMITED = httpx.Limits(max_connections=None, max_keepalive_connections=64)


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
        self.http = http
        self._database = database
        self._settings = world.settings
        self.chain = Chain(rpc, self._settings.token.address)

    # --- what is not final

    async def drained(self, *, wait_s):
        """Wait until every row is final or waits for its time; returns those that are open."""

        def is_due(row):
            return row.final_by <= time.time() + GRACE_S + POLL_S

        return await self._wait(lambda rows: not any(map(is_due, rows)), wait_s)

    async def closed(self, *, wait_s):
        """Wait until every row is final; returns those that are still open."""
        return await self._wait(lambda rows: not rows, wait_s)

    async def closed_for(self, payer, *, wait_s):
        """Wait until every row of a payer is final; returns those of it that are still open."""

        def of_payer(rows):
            return [row for row in rows if row.payer == payer]

        return of_payer(await self._wait(lambda rows: not of_payer(rows), wait_s))

    async def _wait(self, enough, wait_s):
        deadline = time.monotonic() + wait_s
        while not enough(rows := await self.open_rows()):
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
                OpenRow(f"answer {row.id}", row.outcome, row.payer, self._given_up(row.created_ms))
                for row in await connection.execute(_running())
            ]
            for row in await read(payments, payments.c.state.in_(UNSETTLED)):
                payer = row.pay_to if row.purpose == Purpose.REFUND else row.payer
                final_by = row.due_ms / 1000 + GRACE_S
                if row.state == PaymentState.CLAIMED and row.flow == "authorization":
                    final_by = float("inf")  # waits for its answer or its tab, which are here too
                rows.append(OpenRow(f"{row.purpose} {row.id}", row.state, payer, final_by))
            paying = {row.payer for row in rows}
            for row in await read(tabs, or_(tabs.c.state != TabState.CLOSED, tabs.c.held > 0)):
                final_by = self._given_up(row.used_ms) + self._settings.tab_idle_s
                if row.state in (TabState.OPENING, TabState.CLOSING) and row.payer in paying:
                    final_by = float("inf")  # waits for its money, which is here too
                rows.append(OpenRow(f"tab {row.id}", row.state, row.payer, final_by))
            for row in await read(purchases, purchases.c.state == PurchaseState.RESERVED):
                expires = row.valid_before and row.valid_before + EXPIRY_MARGIN_S + TIDY_S + GRACE_S
                final_by = expires or self._given_up(row.created_ms)
                rows.append(OpenRow(f"purchase {row.id}", row.state, None, final_by))
        return rows

    def _given_up(self, since_ms):
        """By when what was last touched then is ended, whoever left it; Unix seconds."""
        abandoned_s = self._settings.answer_timeout_s + SETTLE_MARGIN_S
        return since_ms / 1000 + abandoned_s + TIDY_S + GRACE_S

    # --- one caller

    async def faults_of(self, caller):
        """What is wrong with a caller all of whose rows are final; empty if nothing is."""
        receipts = await self._receipts(caller)
        charged = {key: receipt for key, receipt in receipts.items() if receipt["charged"]}
        faults = []
        lost = WALLET_USDC - await self.chain.balance(caller.address)
        if lost != sum(receipt["charged"] for receipt in charged.values()):
            faults.append(f"lost {lost} and was charged {charged}")
        if never_asked := charged.keys() - {question.key for question in caller.questions}:
            faults.append(f"was charged for what it never asked: {never_asked}")
        for question in caller.questions:
            if question.price:
                faults += await self._faults_of(caller, question, charged.get(question.key))
        return [f"{caller.behaviour.__name__} {caller.address} {fault}" for fault in faults]

    async def _faults_of(self, caller, question, receipt):
        """A charged answer was delivered, or is when it is asked for again; no other one was."""
        if receipt is None:
            return [f"got {set(question.answers)} for nothing"] if question.answers else []
        if not question.answers:
            await caller.send(question)
        if set(question.answers) != {receipt["id"]}:
            got = set(question.answers)
            return [f"got {got} and not what it paid, {receipt}; asked again: {question.last}"]
        texts = question.answers[receipt["id"]]
        return [f"got several texts of {receipt['id']}: {texts}"] if len(texts) > 1 else []

    async def _receipts(self, caller):
        """The receipts of what its payments and tabs were claimed for, by nonce or key."""
        own_tabs = charges.join(tabs, tabs.c.id == charges.c.tab_id)
        found = []
        async with self._database.read() as connection:
            for query in (
                select(payments.c.nonce, payments.c.answer_id).where(
                    payments.c.payer == caller.address, payments.c.purpose == Purpose.ANSWER
                ),
                select(charges.c.idempotency_key, charges.c.answer_id)
                .select_from(own_tabs)
                .where(tabs.c.payer == caller.address, charges.c.state == ChargeState.CAPTURED),
            ):
                found += (await connection.execute(query)).all()
        return {key: await self._receipt(answer_id) for key, answer_id in found}

    async def _receipt(self, answer_id):
        response = await self.http.get(f"{self._world.url}/v1/receipts/{answer_id}")
        return response.raise_for_status().json()

    # --- everything together

    async def differences(self):
        """What ledger and chain do not agree on, and debts: no caller here owes anything."""
        token = Token(self._settings.network, self._settings.token.address.lower())
        report = await audit(self._database, self.chain, token, {self._settings.pay_to.lower()})
        return [*report.differences, *report.debts, *await self._provider_differences()]

    async def _provider_differences(self):
        """The seller of the larger model got what the ledger says that it was paid."""
        provider = self._settings.upstream_pay_to
        async with self._database.read() as connection:
            rows = (await connection.execute(select(purchases.c.state, purchases.c.amount))).all()
        held = await self.chain.balance(provider)
        paid = sum(row.amount for row in rows if row.state == PurchaseState.PAID)
        perhaps = sum(row.amount for row in rows if row.state == PurchaseState.RESERVED)
        if paid <= held <= paid + perhaps:
            return []
        return [f"the provider holds {held}; {paid} is noted as paid, {perhaps} as on its way"]


@asynccontextmanager
async def proof_of(world):
    """The books of a running world, for the event loop that is running."""
    database, rpc = await Database.open(world.settings.ledger), Rpc(world.settings.rpc)
    try:
        async with httpx.AsyncClient(
            timeout=REPLY_TIMEOUT_S, trust_env=False, limits=UNLIMITED
        ) as http:
            yield Proof(world, http, database, rpc)
    finally:
        await rpc.aclose()
        await database.close()


def _running():
    """Answers under way, with who pays for them."""
    return (
        select(answers, func.coalesce(payments.c.payer, tabs.c.payer).label("payer"))
        .outerjoin(payments, payments.c.answer_id == answers.c.id)
        .outerjoin(charges, charges.c.answer_id == answers.c.id)
        .outerjoin(tabs, tabs.c.id == charges.c.tab_id)
        .where(answers.c.outcome == "running")
    )
