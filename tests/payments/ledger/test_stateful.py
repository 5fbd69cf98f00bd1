"""Random lives of answers, tabs, purchases and reorganisations, against plain arithmetic.

After every step the journal must say what `money_model` says; at the end everything is drained,
and whoever is not even is a listed debtor.
"""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from tests.payments.ledger.money_model import ASSET, NETWORK, OURS, PRICE, MoneyModel
from tinybrain.errors import DebtOwed, PaymentConflict, TooManyUnsettled
from tinybrain.payments.database import Database
from tinybrain.payments.records import Charge, NewAnswer, NewPurchase, NewTab, TabCharge
from tinybrain.payments.schema import charges, payments, purchases, tabs

UPSTREAM = "0x" + "d" * 40
PAYERS = ["0x" + "1" * 40, "0x" + "2" * 40]
FINAL = {"settled", "released", "refunded", "debt", "repaid"}

picks = st.integers(0, 10**6)
payers = st.sampled_from(PAYERS)
flows = st.sampled_from(["authorization", "upfront"])
fates = st.sampled_from(["mined", "cancelled", "open"])


class Money(MoneyModel):
    """One ledger, one chain, two payers."""

    # --- callers

    @rule(payer=payers, pick=picks, flow=flows, fate=fates, served=st.booleans())
    def ask_with_a_payment(self, payer, pick, flow, fate, served):
        payment = replace(self.sign(payer, PRICE, pick), flow=flow)
        expected, answer = self.refusal(payment), f"ans_{next(self.numbers)}"
        result = self.attempt(
            self.ledger.begin(NewAnswer(answer, "x402", "auto", PRICE), payment),
            DebtOwed,
            PaymentConflict,
        )
        if expected:
            assert isinstance(result, expected)
        else:
            assert result == flow
            self.running[answer] = payment.nonce
            if flow == "upfront":
                self.settle(self.rows(payments, answer_id=answer)[0], fate)
            if served:
                self.end(answer, Charge.YES)

    @precondition(MoneyModel.able_tabs)
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

    @precondition(lambda self: len(self.running) > 1)
    @rule()
    def a_process_dies(self):
        self.now += 1_000
        assert self.run(self.ledger.release_abandoned(older_than_s=500)) == len(self.running)
        self.running.clear()

    @precondition(lambda self: self.running and not self.reserved())
    @rule(pick=picks, signs=st.booleans())
    def reserve(self, pick, signs):
        answer = self.one(list(self.running), pick)
        new = NewPurchase(answer, "upstream.example", NETWORK, ASSET, OURS, UPSTREAM, 1_000)
        number = self.run(self.ledger.reserve(new))
        self.bought[number] = (answer, "reserved", 1_000)
        if signs:
            self.run(self.ledger.signed(number, nonce=f"0xF{number}", valid_before=1))

    @precondition(MoneyModel.reserved)
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
    @rule(pick=picks, patient=st.booleans(), fate=fates)
    def look(self, pick, patient, fate):
        row = self.one(self.rows(payments, state="settling"), pick)
        self.befall(row, fate)
        self.resolve(row, patient=patient)

    @precondition(lambda self: self.rows(payments, state="settling"))
    @rule(pick=picks, fate=fates)
    def mine_or_cancel(self, pick, fate):
        self.befall(self.one(self.rows(payments, state="settling"), pick), fate)

    @precondition(lambda self: self.rows(payments, state={"claimed", "served"}))
    @rule(pick=picks, fate=fates)
    def settle_one(self, pick, fate):
        if row := self.one(self.ready(), pick):
            self.settle(row, fate)

    @precondition(MoneyModel.arrived)
    @rule(pick=picks, fate=fates, looked=st.booleans())
    def reorganise(self, pick, fate, looked):
        row = self.one(self.arrived(), pick)
        del self.moved[row.id], self.told[row.id]
        self.run(self.ledger.undone(row.id))
        self.befall(row, fate)
        if looked:
            self.resolve(row, patient=False)

    @precondition(MoneyModel.arrived)
    @rule(pick=picks)
    def bury(self, pick):
        self.run(self.ledger.final([self.one(self.arrived(), pick).id]))

    @precondition(MoneyModel.withholdable)
    @rule(pick=picks)
    def withhold(self, pick):
        row = self.one(self.withholdable(), pick)
        self.run(self.ledger.withheld(row.id))
        del self.delivered[row.answer_id]

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
        while self.drain_one_round():
            pass

    def drain_one_round(self):
        """Returns whether there was something to do."""
        self.now += 1_000
        unclosed = self.rows(tabs, state="open")
        for tab in unclosed:
            self.run(self.ledger.close_tab(tab.id))
        due = self.run(self.ledger.due_payments())
        self.run(self.ledger.take([row.id for row in due]))
        for row in self.rows(payments, state="settling"):
            self.befall(row, "mined")
            self.resolve(row, patient=False)
        return due or unclosed

    def everything_is_final(self):
        rows, accounts = self.rows(payments), self.accounts()
        self.the_journal_says_what_was_delivered_and_what_moved()
        assert {row.state for row in rows} <= FINAL
        assert {(tab.state, tab.balance) for tab in self.rows(tabs)} <= {("closed", 0)}
        assert {charge.state for charge in self.rows(charges)} <= {"captured", "released"}
        assert {purchase.state for purchase in self.rows(purchases)} <= {"paid", "released"}
        assert self.told == self.moved
        for payer in PAYERS:
            owed = sum(row.owed for row in rows if row.payer == payer and row.state == "debt")
            assert accounts[f"payer:{payer}"] == owed


@pytest.mark.timeout(600)  # 30 s; a failure takes minutes to shrink
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
