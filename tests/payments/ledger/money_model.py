"""What a ledger must say, by plain arithmetic, beside the ledger itself and a chain.

Three things are known: which answers were delivered to whom for how much, which transfers the
chain holds, and which of them the ledger was told of.
"""

import asyncio
import shutil
from collections import Counter
from itertools import count

from hypothesis.stateful import RuleBasedStateMachine, invariant
from sqlalchemy import make_url, select

from tinybrain.errors import DebtOwed, PaymentConflict
from tinybrain.payments.database import Database
from tinybrain.payments.ledger import IllegalTransition, Ledger
from tinybrain.payments.records import AnswerRecord, Charge, Collected, Limits, NewPayment
from tinybrain.payments.schema import entries, payments, tabs
from tinybrain.payments.sqlite import create_sqlite_engine

OURS = "0x" + "c" * 40
NETWORK, ASSET = "eip155:84532", "0x" + "a" * 40
PRICE = 10_000
LIMITS = Limits(  # none of them: what they refuse is tested apart
    unsettled_per_payer=10**9, unsettled=10**9, refunds_per_hour=10**9, margin=-(10**9)
)
ENDS = {
    Charge.YES: AnswerRecord("completed"),
    Charge.NO: AnswerRecord("failed", error="it broke"),
}


class MoneyModel(RuleBasedStateMachine):
    """One ledger, one chain, and what is known of both."""

    def __init__(self, template, folder):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.read = {}  # tables as they are since the last change
        path = folder / "ledger.db"
        for old in folder.glob("ledger.db*"):
            old.unlink()
        shutil.copy(template, path)
        self.now = 1_800_000_000.0
        engine = create_sqlite_engine(make_url(f"sqlite+aiosqlite:///{path}"))
        self.database = Database(engine)  # the template is migrated
        self.ledger = Ledger(self.database, clock=lambda: self.now, limits=LIMITS)
        self.numbers = count(1)
        self.running = {}  # answer → the nonce or tab that pays for it, or None
        self.delivered = {}  # answer → (payer, price, nonce or tab)
        self.signed = {}  # nonce → (payer, amount)
        self.dead = set()  # payments that the chain will never take
        self.moved = {}  # payment → (from, to, amount), as the chain has it
        self.told = {}  # the same, as the ledger was told
        self.bought = {}  # purchase → (answer, state, amount)

    def run(self, coroutine):
        self.read.clear()
        return self.loop.run_until_complete(coroutine)

    def rows(self, table, **values):
        """Those that have one of the values in each of the columns named."""
        if table.name not in self.read:
            self.read[table.name] = self.loop.run_until_complete(self.select(table))
        wanted = {name: one if isinstance(one, set) else {one} for name, one in values.items()}
        rows = self.read[table.name]
        return [r for r in rows if all(getattr(r, name) in wanted[name] for name in wanted)]

    async def select(self, table):
        async with self.database.read() as connection:
            return (await connection.execute(select(table).order_by(*table.primary_key))).all()

    def attempt(self, coroutine, *refusals):
        """Run; returns the expected refusal instead of raising it."""
        try:
            return self.run(coroutine)
        except refusals as refusal:
            return refusal

    def one(self, found, pick):
        return found[pick % len(found)] if found else None

    def ready(self):
        """What the ledger says is to be settled now."""
        self.now += 60
        return [row for row in self.run(self.ledger.due_payments()) if row.state != "settling"]

    def arrived(self):
        return self.rows(payments, state={"settled", "refunded"}, final=False)

    def able_tabs(self):
        return [tab for tab in self.rows(tabs, state="open") if tab.balance >= PRICE]

    def reserved(self):
        return [number for number, what in self.bought.items() if what[1] == "reserved"]

    def withholdable(self):
        debts = self.rows(payments, state="debt", purpose="answer", flow="authorization")
        return [row for row in debts if row.answer_id in self.delivered]

    # --- callers

    def sign(self, payer, amount, pick):
        """A fresh authorization, or one of the same amount that may still be good."""
        gone = {row.nonce for row in self.rows(payments) if row.id in self.dead | set(self.moved)}
        old = [n for n, what in self.signed.items() if what == (payer, amount) and n not in gone]
        nonce = self.one(old, pick // 2) if pick % 2 else None
        nonce = nonce or f"0x{next(self.numbers):064x}"
        self.signed[nonce] = (payer, amount)
        return NewPayment(
            network=NETWORK,
            asset=ASSET,
            payer=payer,
            nonce=nonce,
            pay_to=OURS,
            amount=amount,
            valid_before=int(self.now) + 10**6,
            request_hash="",
            payload={},
            requirements={},
        )

    def refusal(self, payment):
        """What the ledger must say to a payment, by what it lists."""
        rows = self.rows(payments)
        if any(row.nonce == payment.nonce and row.state != "released" for row in rows):
            return PaymentConflict
        owes = any(row.payer == payment.payer and row.state == "debt" for row in rows)
        return DebtOwed if owes else None

    def end(self, answer, charge):
        charged = charge is Charge.YES
        upfront = self.rows(payments, answer_id=answer, flow="upfront")
        result = self.attempt(
            self.ledger.finish(answer, ENDS[charge], charge=charge), IllegalTransition
        )
        if charged and any(row.state != "settled" for row in upfront):
            assert isinstance(result, IllegalTransition)
            return
        assert result is charged
        source = self.running.pop(answer)
        if charged and source is not None:
            tab = self.rows(tabs, id=source)
            payer = tab[0].payer if tab else self.signed[source][0]
            self.delivered[answer] = (payer, PRICE, source)

    # --- the chain

    def settle(self, row, fate):
        self.run(self.ledger.take([row.id]))
        self.befall(row, fate)
        self.resolve(row, patient=False)

    def befall(self, row, fate):
        if fate == "mined" and row.id not in self.dead:
            self.moved[row.id] = (row.payer, row.pay_to, row.amount)
        if fate == "cancelled" and row.purpose != "refund" and row.id not in self.moved:
            self.dead.add(row.id)

    def resolve(self, row, *, patient):
        if row.id in self.moved:
            self.run(self.ledger.settled([Collected(row.id, f"0x{row.id}", 1)]))
            self.told[row.id] = self.moved[row.id]
        elif row.id in self.dead:
            self.run(self.ledger.uncollectable(row.id, "cancelled"))
        elif patient:
            self.run(self.ledger.look_again(row.id, after_s=1, transaction="0x1"))
        else:
            self.run(self.ledger.try_again(row.id, after_s=1, note="the chain is away"))

    # --- what must always hold

    def accounts(self):
        totals = Counter()
        for entry in self.rows(entries):
            totals[entry.debit] += entry.amount
            totals[entry.credit] -= entry.amount
        return totals

    @invariant()
    def the_journal_says_what_was_delivered_and_what_moved(self):
        accounts = self.accounts()
        expected = Counter()
        for payer, price, _ in self.delivered.values():
            expected[f"payer:{payer}"] += price
            expected["revenue"] -= price
        for source, target, amount in self.told.values():
            expected[f"{'wallet' if source == OURS else 'payer'}:{source}"] -= amount
            expected[f"{'wallet' if target == OURS else 'payer'}:{target}"] += amount
        for _, state, amount in self.bought.values():
            if state == "paid":
                expected["cost"] += amount
                expected[f"wallet:{OURS}"] -= amount
        assert +accounts == +expected
        assert -accounts == -expected

    @invariant()
    def tabs_add_up(self):
        held = Counter(self.running.values())
        spent = Counter(source for _, _, source in self.delivered.values())
        for tab in self.rows(tabs):
            assert tab.balance + tab.held + tab.spent + tab.refunded == tab.deposit
            assert min(tab.balance, tab.held, tab.spent, tab.refunded) >= 0
            assert (tab.held, tab.spent) == (held[tab.id] * PRICE, spent[tab.id] * PRICE)

    @invariant()
    def no_authorization_bought_two_answers(self):
        bought = Counter(source for _, _, source in self.delivered.values() if source[0] == "0")
        assert not bought or max(bought.values()) == 1

    @invariant()
    def what_is_not_claimed_any_more_was_delivered_or_is_given_back(self):
        for row in self.rows(payments, purpose="answer"):
            if row.answer_id in self.delivered:
                assert row.state in {"served", "settling", "settled", "debt", "repaid"} or (
                    row.flow == "upfront" and row.attempts > 0
                )
            elif row.answer_id not in self.running and row.flow == "authorization":
                assert row.state == "released"
