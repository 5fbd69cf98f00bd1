"""Random lives of answers, tabs, purchases and reorganisations, against plain arithmetic.

The model knows three things only: which answers were delivered to whom for how much, which
transfers the chain holds, and which of them the ledger was told of. After every step the journal
must say the same; at the end everything is drained, and whoever is not even is a listed debtor.
"""

import asyncio
import shutil
from collections import Counter
from dataclasses import replace
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import make_url, select

from tinybrain.errors import DebtOwed, PaymentConflict, TooManyUnsettled
from tinybrain.payments.database import Database
from tinybrain.payments.ledger import IllegalTransition, Ledger
from tinybrain.payments.records import (
    AnswerRecord,
    Charge,
    Collected,
    Limits,
    NewAnswer,
    NewPayment,
    NewPurchase,
    NewTab,
    TabCharge,
)
from tinybrain.payments.schema import charges, entries, payments, purchases, tabs
from tinybrain.payments.sqlite import create_sqlite_engine

OURS, UPSTREAM = "0x" + "c" * 40, "0x" + "d" * 40
PAYERS = ["0x" + "1" * 40, "0x" + "2" * 40]
NETWORK, ASSET = "eip155:84532", "0x" + "a" * 40
PRICE = 10_000
FINAL = {"settled", "released", "refunded", "debt", "repaid"}
LIMITS = Limits(unsettled_per_payer=10**9, unsettled=10**9)
ENDS = {
    Charge.YES: AnswerRecord("completed"),
    Charge.NO: AnswerRecord("failed", error="it broke"),
    Charge.IF_BOUGHT: AnswerRecord("aborted"),
}

picks = st.integers(0, 10**6)
payers = st.sampled_from(PAYERS)


class Money(RuleBasedStateMachine):
    """One ledger, one chain, two payers."""

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
        if any(row.payer == payment.payer and row.state == "debt" for row in rows):
            return DebtOwed
        used = (row.nonce == payment.nonce and row.state != "released" for row in rows)
        return PaymentConflict if any(used) else None

    @rule(payer=payers, pick=picks, upfront=st.booleans(), served=st.booleans())
    def ask_with_a_payment(self, payer, pick, upfront, served):
        payment = self.sign(payer, PRICE, pick)
        payment = replace(payment, flow="upfront" if upfront else "authorization")
        expected, answer = self.refusal(payment), f"ans_{next(self.numbers)}"
        result = self.attempt(
            self.ledger.begin(NewAnswer(answer, "x402", "auto", PRICE), payment),
            DebtOwed,
            PaymentConflict,
        )
        if expected:
            assert isinstance(result, expected)
        else:
            assert result == payment.flow
            self.running[answer] = payment.nonce
            if upfront:
                self.settle(self.rows(payments, answer_id=answer)[0], "mined" if served else "open")
            if served:
                self.end(answer, Charge.YES)

    def able_tabs(self):
        return [tab for tab in self.rows(tabs, state="open") if tab.balance >= PRICE]

    @precondition(able_tabs)
    @rule(pick=picks, served=st.booleans())
    def ask_on_a_tab(self, pick, served):
        tab, answer = self.one(self.able_tabs(), pick), f"ans_{next(self.numbers)}"
        new = NewAnswer(answer, "tab", "auto", PRICE)
        self.run(self.ledger.begin(new, tab=TabCharge(tab.token_hash, "")))
        self.running[answer] = tab.id
        if served:
            self.end(answer, Charge.YES)

    @precondition(lambda self: not self.running)
    @rule()
    def ask_with_a_key(self):
        answer = f"ans_{next(self.numbers)}"
        self.run(self.ledger.begin(NewAnswer(answer, "api_key", "auto", PRICE)))
        self.running[answer] = None

    @rule(payer=payers, pick=picks, kind=st.sampled_from(["bar", "prepaid"]), large=st.booleans())
    def open_tab(self, payer, pick, kind, large):
        deposit = self.sign(payer, 3 * PRICE if large else PRICE, pick)
        expected, tab = self.refusal(deposit), f"tab_{next(self.numbers)}"
        if kind == "bar" and self.rows(tabs, payer=payer, kind="bar", state={"open", "closing"}):
            expected = TooManyUnsettled
        result = self.attempt(
            self.ledger.open_tab(NewTab(tab, tab, kind), deposit),
            DebtOwed,
            PaymentConflict,
            TooManyUnsettled,
        )
        assert isinstance(result, expected or int)

    @precondition(lambda self: self.rows(tabs, state={"opening", "open", "closing"}))
    @rule(pick=picks, signs=st.booleans())
    def close_tab(self, pick, signs):
        tab = self.one(self.rows(tabs, state={"opening", "open", "closing"}), pick)
        settlement = self.sign(tab.payer, tab.spent, 0) if signs and tab.spent else None
        result = self.attempt(self.ledger.close_tab(tab.id, settlement), PaymentConflict)
        refused = tab.state == "opening" or (tab.state == "open" and tab.held > 0)
        assert isinstance(result, PaymentConflict) == refused

    @precondition(lambda self: self.rows(payments, state="debt"))
    @rule(pick=picks, extra=st.sampled_from([-1, 0, 7]))
    def repay(self, pick, extra):
        payer = self.one(self.rows(payments, state="debt"), pick).payer
        owed = sum(row.owed for row in self.run(self.ledger.debts(payer)))
        self.run(self.ledger.repay(self.sign(payer, owed + extra, 0), debtor=payer))

    # --- the work

    @precondition(lambda self: self.running)
    @rule(pick=picks, charge=st.sampled_from(Charge))
    def finish(self, pick, charge):
        self.end(self.one(list(self.running), pick), charge)

    def end(self, answer, charge):
        bought = any(of == answer and state != "released" for of, state, _ in self.bought.values())
        charged = charge is Charge.YES or (charge is Charge.IF_BOUGHT and bought)
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

    @precondition(lambda self: len(self.running) > 1)
    @rule()
    def a_process_dies(self):
        self.now += 1_000
        assert self.run(self.ledger.release_abandoned(older_than_s=500)) == len(self.running)
        self.running.clear()

    @precondition(lambda self: self.running)
    @rule(pick=picks, signs=st.booleans())
    def reserve(self, pick, signs):
        answer = self.one(list(self.running), pick)
        new = NewPurchase(answer, "upstream.example", NETWORK, ASSET, OURS, UPSTREAM, 1_000)
        number = self.run(self.ledger.reserve(new))
        self.bought[number] = (answer, "reserved", 1_000)
        if signs:
            self.run(self.ledger.signed(number, nonce=f"0xF{number}", valid_before=1))

    def reserved(self):
        return [number for number, what in self.bought.items() if what[1] == "reserved"]

    @precondition(reserved)
    @rule(pick=picks, paid=st.booleans())
    def resolve_purchase(self, pick, paid):
        number = self.one(self.reserved(), pick)
        if paid:
            self.run(self.ledger.paid(number, transaction="0xe"))
        else:
            self.run(self.ledger.release_purchase(number, note="refused"))
        answer, _, amount = self.bought[number]
        self.bought[number] = (answer, "paid" if paid else "released", amount)

    # --- the settler and the chain

    @precondition(lambda self: self.rows(payments, state={"claimed", "served"}))
    @rule(pick=picks)
    def take(self, pick):
        if row := self.one(self.ready(), pick):
            assert self.run(self.ledger.take([row.id])) == {row.id}
            assert self.run(self.ledger.take([row.id])) == set()

    @precondition(lambda self: self.rows(payments, state="settling"))
    @rule(pick=picks, patient=st.booleans(), fate=st.sampled_from(["mined", "cancelled", "open"]))
    def look(self, pick, patient, fate):
        row = self.one(self.rows(payments, state="settling"), pick)
        self.befall(row, fate)
        self.resolve(row, patient=patient)

    @precondition(lambda self: self.rows(payments, state="settling"))
    @rule(pick=picks, fate=st.sampled_from(["mined", "cancelled"]))
    def mine_or_cancel(self, pick, fate):
        self.befall(self.one(self.rows(payments, state="settling"), pick), fate)

    @precondition(lambda self: self.rows(payments, state={"claimed", "served"}))
    @rule(pick=picks, fate=st.sampled_from(["mined", "cancelled"]))
    def settle_one(self, pick, fate):
        if row := self.one(self.ready(), pick):
            self.settle(row, fate)

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

    @precondition(arrived)
    @rule(pick=picks, fate=st.sampled_from(["mined", "cancelled", "open"]), looked=st.booleans())
    def reorganise(self, pick, fate, looked):
        row = self.one(self.arrived(), pick)
        del self.moved[row.id], self.told[row.id]
        self.run(self.ledger.undone(row.id))
        self.befall(row, fate)
        if looked:
            self.resolve(row, patient=False)

    @precondition(arrived)
    @rule(pick=picks)
    def bury(self, pick):
        self.run(self.ledger.final([self.one(self.arrived(), pick).id]))

    def withholdable(self):
        debts = self.rows(payments, state="debt", purpose="answer", flow="authorization")
        return [row for row in debts if row.answer_id in self.delivered]

    @precondition(withholdable)
    @rule(pick=picks)
    def withhold(self, pick):
        row = self.one(self.withholdable(), pick)
        self.run(self.ledger.withheld(row.id))
        del self.delivered[row.answer_id]

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

    def teardown(self):
        try:
            self.drain()
            self.everything_is_final()
        finally:
            self.run(self.database.close())
            self.loop.close()

    def drain(self):
        self.a_process_dies()
        while self.reserved():
            self.resolve_purchase(pick=0, paid=False)
        for _ in range(12):
            self.now += 1_000
            for tab in self.rows(tabs, state="open"):
                self.run(self.ledger.close_tab(tab.id))
            due = self.run(self.ledger.due_payments())
            self.run(self.ledger.take([row.id for row in due]))
            for row in self.rows(payments, state="settling"):
                self.befall(row, "mined")
                self.resolve(row, patient=False)

    def everything_is_final(self):
        rows, accounts = self.rows(payments), self.accounts()
        self.the_journal_says_what_was_delivered_and_what_moved()
        assert {row.state for row in rows} <= FINAL
        assert {tab.state for tab in self.rows(tabs)} <= {"closed"}
        assert {charge.state for charge in self.rows(charges)} <= {"captured", "released"}
        assert {purchase.state for purchase in self.rows(purchases)} <= {"paid", "released"}
        assert self.told == self.moved
        for payer in PAYERS:
            owed = sum(row.owed for row in rows if row.payer == payer and row.state == "debt")
            assert accounts[f"payer:{payer}"] == owed


def test_no_interleaving_loses_money_or_takes_it_for_nothing(tmp_path):
    template, folder = tmp_path / "template.db", tmp_path / "run"
    folder.mkdir()

    async def migrate():
        await (await Database.open(f"sqlite+aiosqlite:///{template}")).close()

    asyncio.run(migrate())
    run_state_machine_as_test(
        lambda: Money(template, folder),
        settings=settings(
            max_examples=60, stateful_step_count=40, deadline=None, print_blob=False, database=None
        ),
    )
