"""Debts: listed for what was delivered and cannot be collected, paid by anyone, then forgiven."""

import httpx
import pytest

pytestmark = pytest.mark.chain
LOCAL = {"model": "tinychat", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}


@pytest.fixture
def debtor(open_service, caller, scripted, token, web3):
    """A caller who has streamed an answer and spent its payment elsewhere, and the service."""
    with open_service(scripted("Well.")) as service:
        service.may_settle.clear()
        headers = caller.headers(service)
        answer = caller.ask(service, LOCAL | {"stream": True}, headers=headers)
        caller.spend_elsewhere(headers, token, web3)
        service.may_settle.set()
        receipt = answer.headers["x-tinybrain-receipt"]
        service.wait_until(lambda: service.payment(receipt)["state"] == "debt")
        caller.debt = f"/v1/debts/{caller.address}"
        yield service, caller, receipt


def pay(service, payer, path, **changes):
    headers = payer.headers(service, path=path, body={}, **changes)
    return httpx.post(service.url + path, headers=headers, timeout=30), headers


def test_a_debt_is_listed_without_the_receipt_that_only_its_caller_knows(debtor):
    service, caller, receipt = debtor
    owed = httpx.get(service.url + caller.debt).json()
    assert (owed["owed"], owed["owed_atomic"]) == ("0.01", 10_000)
    (payment,) = owed["payments"]
    assert payment["amount"] == "0.01"
    assert payment["note"]
    assert receipt not in str(owed)


def test_who_owes_is_told_where_to_pay_and_not_served(debtor):
    service, caller, _ = debtor
    refused = caller.ask(service, LOCAL)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "debt_owed")
    assert caller.debt.lower() in refused.json()["error"]["message"].lower()


async def test_anyone_may_pay_with_a_stock_client_and_the_payer_is_served_again(debtor, new_caller):
    service, caller, receipt = debtor
    friend = new_caller()
    async with friend.http() as http:
        paid = await http.post(service.url + caller.debt)
    assert (paid.status_code, paid.json()["owed"]) == (200, "0.00")
    assert "payment-response" in paid.headers
    assert friend.balance() == 990_000
    assert service.payment(receipt)["state"] == "repaid"
    assert caller.ask(service, LOCAL).status_code == 200


def test_the_same_payment_again_is_not_charged_twice(debtor):
    service, caller, _ = debtor
    paid, headers = pay(service, caller, caller.debt)
    again = httpx.post(service.url + caller.debt, headers=headers, timeout=30)
    assert (paid.status_code, again.status_code) == (200, 200)
    assert again.headers["payment-response"] == paid.headers["payment-response"]
    assert caller.balance() == 990_000


def test_a_payment_of_another_sum_is_refused(debtor):
    service, caller, _ = debtor
    refused, _ = pay(service, caller, caller.debt, amount="9999")
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "payment_invalid")
    assert httpx.get(service.url + caller.debt).json()["owed"] == "0.01"


def test_who_owes_nothing_is_asked_for_nothing(service, caller):
    answer = httpx.post(f"{service.url}/v1/debts/{caller.address}")
    assert (answer.status_code, answer.json()["owed"]) == (200, "0.00")
    assert "payment-required" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_address_is_an_address(service, method):
    answer = httpx.request(method, f"{service.url}/v1/debts/alice")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "address")
