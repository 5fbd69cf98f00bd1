"""The books list what the ledger holds, page by page, and tell nothing secret."""

import pytest

from tinybrain.errors import ConfigError, InvalidRequest
from tinybrain.payments import books as module
from tinybrain.payments.books import Books, Filters, Kind, columns_of, open_existing
from tinybrain.payments.records import AnswerRecord, Charge, Collected, NewTab, Purpose, TabCharge

COMPLETED = AnswerRecord(outcome="completed")
FAILED = AnswerRecord(outcome="failed", error="it broke")
OTHER = "0x" + "e" * 40
SECRETS = {"payload", "requirements", "token_hash", "request_hash", "nonce", "identifier"}


@pytest.fixture
def books(database):
    return Books(database)


@pytest.fixture
def listed(books):
    async def collect(kind, limit=None, *, newest_first=True, **filters):
        rows = books.rows(kind, Filters(**filters), newest_first=newest_first, limit=limit)
        return [row async for row in rows]

    return collect


@pytest.fixture
async def lived(ledger, clock, new_answer, new_payment, new_purchase):
    """A sale, a refunded failure, a debt, a purchase and a tab, a second apart."""
    for number, (record, flow, payer) in enumerate(
        [(COMPLETED, "authorization", OTHER), (FAILED, "upfront", OTHER)], 1
    ):
        answer = new_answer(number)
        await ledger.begin(answer, new_payment(number, flow=flow, payer=payer))
        if flow == "upfront":
            await _settle(ledger, (await ledger.payment_of(answer.id)).id)
        charge = Charge.YES if record is COMPLETED else Charge.NO
        await ledger.finish(answer.id, record, charge=charge)
        clock.now += 1
    for row in await ledger.due_payments():
        await _settle(ledger, row.id)
    await ledger.begin(new_answer(3), new_payment(3))
    await ledger.finish(new_answer(3).id, COMPLETED, charge=Charge.YES)
    debt = (await ledger.payment_of(new_answer(3).id)).id
    await ledger.take([debt])
    await ledger.uncollectable(debt, "cancelled")
    clock.now += 1
    purchase = await ledger.reserve(new_purchase(1_000, new_answer(3).id))
    await ledger.paid(purchase, transaction="0x5")
    payment = new_payment(4, purpose=Purpose.TAB, payer=OTHER, amount=50_000)
    await ledger.open_tab(NewTab("tab_1", "f" * 64, "bar"), payment)
    await ledger.begin(new_answer(4, credential="tab"), tab=TabCharge("f" * 64, "0" * 64))
    await ledger.finish(new_answer(4).id, COMPLETED, charge=Charge.YES)


async def _settle(ledger, payment_id):
    await ledger.take([payment_id])
    await ledger.settled([Collected(payment_id, f"0x{payment_id}", 1)])


@pytest.mark.parametrize("kind", Kind)
async def test_nothing_secret_is_listed(listed, lived, kind):
    rows = await listed(kind)
    assert rows
    assert not SECRETS & rows[0].keys()
    assert tuple(rows[0]) == columns_of(kind)


async def test_payments_and_refunds_are_listed_apart(listed, lived):
    assert [row["purpose"] for row in await listed(Kind.REFUNDS)] == ["refund"]
    assert [row["state"] for row in await listed(Kind.PAYMENTS)] == [
        "claimed",
        "debt",
        "refunded",
        "settled",
    ]


@pytest.mark.parametrize(
    ("kind", "filters", "count"),
    [
        (Kind.PAYMENTS, {"state": "debt"}, 1),
        (Kind.PAYMENTS, {"payer": OTHER}, 3),
        (Kind.PAYMENTS, {"payer": OTHER, "state": "settled"}, 1),
        (Kind.REFUNDS, {"payer": OTHER}, 1),
        (Kind.REFUNDS, {"answer_id": f"ans_{2:032x}"}, 1),
        (Kind.REFUNDS, {"answer_id": f"ans_{1:032x}"}, 0),
        (Kind.PURCHASES, {"state": "paid"}, 1),
        (Kind.PURCHASES, {"answer_id": f"ans_{3:032x}"}, 1),
        (Kind.TABS, {"payer": OTHER}, 1),
        (Kind.TABS, {"answer_id": f"ans_{4:032x}"}, 1),
        (Kind.ENTRIES, {"answer_id": f"ans_{3:032x}"}, 2),
        (Kind.ENTRIES, {"payer": OTHER}, 5),
        (Kind.ANSWERS, {"payer": OTHER}, 3),
        (Kind.ANSWERS, {"state": "failed"}, 1),
        (Kind.ANSWERS, {"since_ms": 1_800_000_001_000}, 3),
        (Kind.ANSWERS, {"until_ms": 1_800_000_001_000}, 1),
    ],
)
async def test_filters_narrow_what_is_listed(listed, lived, kind, filters, count):
    assert len(await listed(kind, **filters)) == count


async def test_a_state_that_there_is_not_is_refused_with_those_there_are(listed):
    with pytest.raises(InvalidRequest, match="settled"):
        await listed(Kind.PAYMENTS, state="setled")
    with pytest.raises(InvalidRequest, match="entries have no state"):
        await listed(Kind.ENTRIES, state="settled")


@pytest.mark.parametrize("newest_first", [True, False])
async def test_pages_join_without_a_gap_though_many_rows_have_the_same_time(
    ledger, listed, new_answer, monkeypatch, newest_first
):
    monkeypatch.setattr(module, "PAGE", 3)
    for number in range(10):
        await ledger.begin(new_answer(number))
    names = [row["id"] for row in await listed(Kind.ANSWERS, newest_first=newest_first)]
    assert names == sorted((new_answer(n).id for n in range(10)), reverse=newest_first)


@pytest.mark.parametrize("limit", [1, 3, 4])
async def test_no_more_than_the_limit_is_listed(ledger, listed, new_answer, monkeypatch, limit):
    monkeypatch.setattr(module, "PAGE", 3)
    for number in range(5):
        await ledger.begin(new_answer(number))
    assert len(await listed(Kind.ANSWERS, limit)) == limit


async def test_the_trial_balance_is_even(books, lived):
    accounts = {account.account: account for account in await books.balances()}
    assert sum(account.balance for account in accounts.values()) == 0
    assert accounts["revenue"].balance == -30_000
    assert accounts["cost"].balance == 1_000
    assert accounts["wallet:0x" + "c" * 40] == ("wallet:0x" + "c" * 40, 20_000, 10_000)
    assert accounts["payer:0x" + "b" * 40].balance == 10_000


async def test_a_missing_ledger_is_not_created(tmp_path):
    path = tmp_path / "none" / "ledger.db"
    with pytest.raises(ConfigError, match="There is no ledger"):
        await open_existing(f"sqlite+aiosqlite:///{path}")
    assert not path.parent.exists()


async def test_a_ledger_that_is_there_is_opened(database, database_url):
    await (await open_existing(database_url)).close()
