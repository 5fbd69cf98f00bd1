"""What is bought upstream never exceeds a cap by one unit, and is paid or released once."""

from dataclasses import replace

import pytest

from tinybrain.errors import BudgetExceeded, UpstreamError
from tinybrain.payments.ledger import IllegalTransition, Ledger
from tinybrain.payments.ledger.purchases import DAY_MS, HOUR_MS
from tinybrain.payments.records import Limits
from tinybrain.payments.schema import purchases

STEPS = {
    "signed": lambda ledger, row: ledger.signed(row, nonce="0xAB", valid_before=1),
    "paid": lambda ledger, row: ledger.paid(row, transaction="0x1"),
    "released": lambda ledger, row: ledger.release_purchase(row, note="x"),
}
LEGAL = {"reserved": {*STEPS}, "signed": {"paid", "released"}, "paid": set(), "released": set()}


@pytest.mark.parametrize("state", LEGAL)
async def test_a_step_from_the_wrong_state_is_illegal_and_changes_nothing(
    ledger, books, new_purchase, state
):
    purchase = await ledger.reserve(new_purchase())
    if state != "reserved":
        await STEPS[state](ledger, purchase)
    before = await books.everything()
    for name in STEPS.keys() - LEGAL[state]:
        with pytest.raises(IllegalTransition):
            await STEPS[name](ledger, purchase)
        assert await books.everything() == before, name


@pytest.mark.parametrize("end", ["paid", "released"])
async def test_a_signed_purchase_is_paid_or_released(ledger, books, new_purchase, end):
    purchase = await ledger.reserve(new_purchase())
    await STEPS["signed"](ledger, purchase)
    await STEPS[end](ledger, purchase)
    row = (await books.rows(purchases))[0]
    assert (row.state, row.nonce, row.valid_before) == (end, "0xab", 1)
    bought = [("purchase", "cost", "wallet:0x" + "b" * 40, 1_000)]
    assert await books.journal() == (bought if end == "paid" else [])


@pytest.mark.parametrize("cap", ["cost_per_hour", "cost_per_day", "cost_per_provider"])
async def test_32_reservations_at_once_never_exceed_a_cap_by_one_unit(
    two_ledgers, race, books, new_purchase, cap
):
    ledgers = two_ledgers(**{cap: 7_999})
    results = await race(ledgers[n % 2].reserve(new_purchase(1_000)) for n in range(32))
    assert sum(isinstance(result, int) for result in results) == 7
    assert sum(isinstance(result, BudgetExceeded) for result in results) == 25
    assert len(await books.rows(purchases)) == 7


@pytest.mark.parametrize(
    ("cap", "period_ms"),
    [("cost_per_hour", HOUR_MS), ("cost_per_day", DAY_MS), ("cost_per_provider", DAY_MS)],
)
async def test_released_and_old_purchases_free_the_budget(
    database, clock, new_purchase, cap, period_ms
):
    ledger = Ledger(database, clock=clock, limits=Limits(**{cap: 1_000}))
    first = await ledger.reserve(new_purchase(1_000))
    await ledger.release_purchase(first, note="refused")
    await ledger.paid(await ledger.reserve(new_purchase(1_000)), transaction=None)
    clock.now += period_ms / 1000 - 1
    with pytest.raises(BudgetExceeded, match=f"TINYBRAIN_MAX_{cap.upper()}"):
        await ledger.reserve(new_purchase(1_000))
    clock.now += 2
    await ledger.reserve(new_purchase(1_000))


async def test_32_audits_at_once_never_exceed_their_budget_by_one_unit(
    two_ledgers, race, books, new_purchase
):
    ledgers = two_ledgers(audits_per_day=7_999)
    audits = (new_purchase(1_000, f"aud_{n}") for n in range(32))
    results = await race(ledgers[n % 2].reserve(audit) for n, audit in enumerate(audits))
    assert sum(isinstance(result, int) for result in results) == 7
    refused = [str(result) for result in results if isinstance(result, BudgetExceeded)]
    assert len(refused) == 25
    assert all("TINYBRAIN_AUDIT_BUDGET_PER_DAY" in each for each in refused)
    await ledgers[0].reserve(new_purchase(1_000, "ans_1"))


async def test_what_callers_buy_takes_nothing_of_the_budget_of_audits(
    database, clock, new_purchase
):
    ledger = Ledger(database, clock=clock, limits=Limits(audits_per_day=1_000))
    await ledger.reserve(new_purchase(1_000, "ans_1"))
    await ledger.reserve(new_purchase(1_000, "aud_2"))
    with pytest.raises(BudgetExceeded, match="TINYBRAIN_AUDIT_BUDGET_PER_DAY"):
        await ledger.reserve(new_purchase(1, "aud_3"))


async def test_an_audit_is_a_cost_without_an_answer(ledger, books, receipts, new_purchase):
    purchase = await ledger.reserve(new_purchase(1_000, "aud_1"))
    await ledger.signed(purchase, nonce="0xAB", valid_before=1)
    await ledger.paid(purchase, transaction="0x1")
    assert await books.journal() == [("purchase", "cost", "wallet:0x" + "b" * 40, 1_000)]
    assert (await receipts.statistics(since_ms=0))["profit"] == -1_000


async def test_a_providers_cap_is_its_own(database, clock, new_purchase):
    ledger = Ledger(database, clock=clock, limits=Limits(cost_per_provider=1_000))
    await ledger.reserve(new_purchase(1_000))
    await ledger.reserve(replace(new_purchase(1_000), provider="other.example"))


@pytest.mark.parametrize(("amount", "fits"), [(9_000, True), (9_001, False)])
async def test_an_answer_keeps_its_margin(database, clock, new_answer, new_purchase, amount, fits):
    ledger = Ledger(database, clock=clock, limits=Limits(margin=1_000))
    await ledger.begin(new_answer())
    if fits:
        await ledger.reserve(new_purchase(amount, new_answer().id))
    else:
        with pytest.raises(BudgetExceeded, match="TINYBRAIN_MIN_MARGIN"):
            await ledger.reserve(new_purchase(amount, new_answer().id))


async def test_a_host_is_paid_where_it_was_paid_first(ledger, books, new_purchase):
    await ledger.reserve(new_purchase())
    elsewhere = replace(new_purchase(), pay_to="0x" + "f" * 40)
    with pytest.raises(UpstreamError, match="TINYBRAIN_UPSTREAM_PAY_TO"):
        await ledger.reserve(elsewhere)
    assert len(await books.rows(purchases)) == 1
    await ledger.reserve(elsewhere, pin=False)


async def test_hosts_met_at_once_are_pinned_to_one_address(two_ledgers, race, new_purchase):
    ledgers = two_ledgers()
    results = await race(
        ledgers[n % 2].reserve(replace(new_purchase(), pay_to=f"0x{n:040x}")) for n in range(8)
    )
    assert sum(isinstance(result, int) for result in results) == 1


async def test_signed_purchases_are_unresolved_once_expired(ledger, clock, new_purchase):
    purchase = await ledger.reserve(new_purchase())
    await ledger.signed(purchase, nonce="0xAB", valid_before=int(clock()) + 10)
    clock.now += 12
    assert await ledger.unresolved_purchases(expired_for_s=60) == []
    clock.now += 60
    assert [row.id for row in await ledger.unresolved_purchases(expired_for_s=60)] == [purchase]


async def test_reservations_never_signed_are_released_later(ledger, clock, books, new_purchase):
    _, signed = [await ledger.reserve(new_purchase()) for _ in range(2)]
    await ledger.signed(signed, nonce="0xAB", valid_before=1)
    clock.now += 100
    await ledger.reserve(new_purchase())
    await ledger.release_unsigned_purchases(older_than_s=50)
    states = [row.state for row in await books.rows(purchases)]
    assert states == ["released", "reserved", "reserved"]
