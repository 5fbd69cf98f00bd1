"""An audit is clean after a normal life, and names whatever somebody changed."""

import time

import pytest

from tinybrain.errors import InvalidRequest, PaymentServiceError
from tinybrain.payments.audit import CannotAudit
from tinybrain.payments.chain import Chain
from tinybrain.payments.records import Collected
from tinybrain.payments.rpc import Rpc

pytestmark = pytest.mark.chain
on_both_databases = pytest.mark.parametrize(
    "database_kind", ["sqlite", "postgresql"], indirect=True
)


async def test_an_audit_is_clean_before_anything_happened(business):
    report = await business.audit()
    assert report.clean
    (wallet,) = report.wallets
    assert wallet.booked == wallet.on_chain == 5_000_000


@on_both_databases
async def test_an_audit_is_clean_after_a_normal_life(business, failed):
    await business.sale()
    await business.sale("upfront")
    await business.sale("upfront", failed)
    await business.sale(record=failed, collected=False)
    await business.close(await business.tab("prepaid", answers=2))
    await business.close(await business.tab("prepaid", answers=10))
    await business.tab("prepaid", answers=1)
    await business.close(await business.tab("bar", answers=3), spent=30_000)
    await business.close(await business.tab("bar", answers=2))
    await business.close(await business.tab("bar", answers=0))
    await business.debt()
    await business.repayment()
    await business.purchase()
    await business.adopt(business.deposit())
    await business.adopt(business.withdraw())
    await business.settle_all()
    report = await business.audit()
    assert report.differences == []
    assert (report.under_way, report.debts) == ([], [])
    (wallet,) = report.wallets
    assert wallet.booked == wallet.on_chain == business.local.balance(business.treasury.address)
    assert report.checked["charges"] == 18
    assert report.checked["purchases"] == 1


async def test_a_node_that_tells_the_next_blocks_balance_is_asked_again(business, monkeypatch):
    """anvil does, if it is asked for its newest block's state while it adds another."""
    balance, asked = Chain.balance, []

    async def of_the_next_block_at_first(chain, address, block):
        asked.append(block)
        return await balance(chain, address, block) + 10_000 * (len(asked) < 3)

    monkeypatch.setattr(Chain, "balance", of_the_next_block_at_first)
    assert (await business.audit()).clean
    assert len(asked) == 3


async def test_debts_are_listed_and_are_no_difference(business):
    debt = await business.debt()
    report = await business.audit()
    assert report.clean
    (finding,) = report.debts
    assert finding.subject == f"payment {debt}"
    assert "owes $0.01" in finding.text


@on_both_databases
async def test_money_that_arrived_and_is_not_noted_yet_is_under_way(business):
    payment = await business.sale(collected=False)
    await business.ledger.take([payment])
    await business.transfer_of(payment)
    purchase = await business.purchase(noted=False)
    report = await business.audit()
    assert report.clean
    assert [found.subject for found in report.under_way] == [
        f"payment {payment}",
        f"purchase {purchase}",
    ]


async def test_a_payment_settled_while_the_audit_runs_is_no_difference(business, monkeypatch):
    payment = await business.sale(collected=False)
    head = Chain.head

    async def settle_after_the_head(chain):
        block = await head(chain)
        if (await business.ledger.payment(payment)).state == "served":
            await business.settle(payment)
        return block

    monkeypatch.setattr(Chain, "head", settle_after_the_head)
    report = await business.audit()
    assert (report.differences, report.under_way) == ([], [])


async def test_a_reorganised_payment_that_was_settled_again_adds_up(business):
    payment = await business.sale()
    row = await business.ledger.payment(payment)
    await business.ledger.undone(payment)
    await business.ledger.settled([Collected(payment, row.transaction, row.block)])
    assert (await business.audit()).clean


@pytest.mark.parametrize(
    ("change", "subject", "told"),
    [
        ("UPDATE payments SET amount = 9000 WHERE id = {payment}", "payment", "the chain shows"),
        ("UPDATE payments SET state = 'released' WHERE id = {payment}", "payment", "is released"),
        ("UPDATE payments SET state = 'debt' WHERE id = {payment}", "payment", "is debt"),
        ("UPDATE payments SET state = 'claimed' WHERE id = {payment}", "payment", "is claimed"),
        ("UPDATE payments SET payer = '{other}' WHERE id = {payment}", "payment", "from {other}"),
        ("UPDATE payments SET pay_to = '{other}' WHERE id = {payment}", "payment", "the chain"),
        (
            "UPDATE payments SET \"transaction\" = '{hash}' WHERE id = {payment}",
            "payment",
            "names {hash}",
        ),
        ("UPDATE payments SET nonce = '{hash}' WHERE id = {payment}", "payment", "does not show"),
        ("UPDATE purchases SET amount = 999 WHERE id = {purchase}", "purchase", "the chain shows"),
        ("UPDATE purchases SET state = 'released'", "purchase", "is released"),
        ("UPDATE purchases SET state = 'reserved'", "purchase", "is reserved"),
        ("UPDATE entries SET amount = 9000 WHERE kind = 'sale'", "payment", "revenue by -$0.009"),
        ("UPDATE entries SET credit = 'cost' WHERE kind = 'sale'", "payment", "cost by -$0.01"),
        ("DELETE FROM entries WHERE kind = 'sale'", "payment", "revenue by $0.00"),
        ("DELETE FROM entries WHERE kind = 'collection'", "payment", "wallet:"),
        ("DELETE FROM entries WHERE kind = 'purchase'", "purchase", "cost by $0.00"),
    ],
)
async def test_a_change_by_hand_is_found_and_its_row_is_named(
    business, found, change, subject, told
):
    names = {"payment": await business.sale(), "purchase": await business.purchase()}
    words = names | {"other": "0x" + "e" * 40, "hash": "0x" + "1" * 64}
    await business.tamper(change.format(**words))
    differences = await found()
    assert told.format(**words) in differences[f"{subject} {names[subject]}"]


@on_both_databases
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("DELETE FROM payments", "belongs to payment"),
        ("DELETE FROM purchases", "belongs to purchase"),
    ],
)
async def test_a_deleted_row_is_missed_by_its_entries_and_by_the_chain(
    business, found, change, told
):
    transaction = (await business.ledger.payment(await business.sale())).transaction
    await business.purchase()
    await business.tamper(change)
    differences = await found()
    assert any(told in text for text in differences.values())
    unexplained = [name for name in differences if name.startswith("transaction")]
    assert len(unexplained) == 1
    assert (f"transaction {transaction}" in unexplained) == ("payments" in change)


async def test_an_entry_too_many_is_found(business, found):
    payment = await business.sale()
    await business.tamper(
        "INSERT INTO entries (at_ms, kind, debit, credit, amount, payment_id) "
        f"VALUES (1, 'sale', 'payer:0x', 'revenue', 5, {payment})"
    )
    assert "payer:0x by $0.000005" in (await found())[f"payment {payment}"]


async def test_an_entry_without_any_row_is_found_and_so_is_the_balance(business, found):
    await business.tamper(
        "INSERT INTO entries (id, at_ms, kind, debit, credit, amount) "
        f"VALUES (77, 1, 'sale', 'wallet:{business.address}', 'revenue', 5)"
    )
    differences = await found()
    assert "entry 77" in differences
    assert "make $5.000005" in differences[f"wallet {business.address}"]


async def test_a_transfer_out_of_the_treasury_that_nobody_knows_is_found(business, found):
    await business.sale()
    transaction = business.withdraw()
    differences = await found()
    assert "$0.25" in differences[f"transaction {transaction}"]
    assert "holds $4.76" in differences[f"wallet {business.address}"]


@on_both_databases
async def test_a_settled_payment_whose_money_never_came_is_found(business, found):
    payment = await business.sale(collected=False)
    await business.ledger.take([payment])
    await business.ledger.settled([Collected(payment, "0x" + "2" * 64, 1)])
    await business.tamper("UPDATE payments SET updated_ms = 0")
    differences = await found()
    assert "does not show that transfer" in differences[f"payment {payment}"]
    assert f"wallet {business.address}" in differences


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE tabs SET spent = spent - 1, balance = balance + 1", "its captured charges"),
        ("UPDATE tabs SET held = held + 1, balance = balance - 1", "its open charges"),
        ("UPDATE tabs SET deposit = deposit + 1, balance = balance + 1", "the payment of it"),
        ("UPDATE charges SET amount = 9000", "its captured charges"),
    ],
)
async def test_a_tab_that_does_not_add_up_is_found(business, found, change, told):
    tab = await business.tab("prepaid", answers=1)
    await business.tamper(change)
    assert told in (await found())[f"tab {tab}"]


async def test_a_closed_tab_without_its_whole_refund_is_found(business, found):
    tab = await business.tab("prepaid", answers=1)
    await business.close(tab)
    await business.tamper("UPDATE payments SET amount = 80000 WHERE purpose = 'refund'")
    differences = await found()
    assert "its refund $0.08" in differences[f"tab {tab}"]


@on_both_databases
async def test_what_stays_open_for_too_long_is_found(business, found):
    payment = await business.sale(collected=False)
    purchase = await business.purchase(noted=False)
    assert await found() == {}
    later = await found(now_s=time.time() + 3_600)
    assert later.keys() == {f"payment {payment}", f"purchase {purchase}"}
    assert "is served for too long" in later[f"payment {payment}"]


async def test_a_wallet_whose_book_is_not_open_cannot_be_audited(business):
    business.address = business.payer
    with pytest.raises(CannotAudit, match=business.payer):
        await business.audit()


async def test_a_chain_that_does_not_answer_cannot_be_compared(business):
    rpc = Rpc("http://127.0.0.1:9")
    business.chain = Chain(rpc, business.local.token.address)
    with pytest.raises(PaymentServiceError):
        await business.audit()
    await rpc.aclose()


@on_both_databases
async def test_an_owners_transfer_is_noted_once(business):
    transaction = business.withdraw()
    (made,) = await business.adopt(transaction)
    assert made.value == 250_000
    assert (await business.audit()).clean
    with pytest.raises(InvalidRequest, match="noted already"):
        await business.adopt(transaction)


async def test_what_a_row_explains_is_not_the_owners(business):
    payment = await business.sale()
    transaction = (await business.ledger.payment(payment)).transaction
    with pytest.raises(InvalidRequest, match=f"payment {payment}"):
        await business.adopt(transaction)


async def test_what_moves_none_of_our_money_is_not_the_owners(business):
    stranger = business.local.new_wallet()
    transaction = business._send(stranger, business._transfer(business.caller.address, 5))[0]
    with pytest.raises(InvalidRequest, match="moved no money"):
        await business.adopt(transaction)


@pytest.mark.parametrize("transaction", ["0x12", "0x" + "9" * 64])
async def test_what_the_chain_does_not_know_is_not_the_owners(business, transaction):
    with pytest.raises(InvalidRequest):
        await business.adopt(transaction)


async def test_an_adopted_transfer_that_the_chain_does_not_show_is_found(business, found):
    await business.ledger.adopt(
        address=business.address, amount=5, incoming=True, transaction="0x" + "3" * 64
    )
    differences = await found()
    assert "does not show it" in differences["transaction 0x" + "3" * 64]
