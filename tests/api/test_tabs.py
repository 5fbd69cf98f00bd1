"""Prepaid tabs: paid once by any x402 client, spent to the cent, and the rest refunded."""

import asyncio
import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from x402.http.utils import decode_payment_response_header

pytestmark = pytest.mark.chain
HELLO = {"model": "tinychat", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
CHAT = "/v1/chat/completions"
BODY = {"deposit": "0.50"}


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def at_tab(service, method, tab, token=None):
    headers = bearer(token or tab["token"])
    return httpx.request(method, f"{service.url}/v1/tabs/{tab['id']}", headers=headers, timeout=30)


def ask(service, token, **options):
    return httpx.post(service.url + CHAT, json=HELLO, headers=bearer(token), timeout=60, **options)


def code(answer):
    return answer.status_code, answer.json()["error"]["code"]


async def test_the_stock_client_opens_a_tab_of_the_deposit_that_it_chose(service, caller):
    async with caller.http() as http:
        answer = await http.post(f"{service.url}/v1/tabs", json=BODY)
    paid = decode_payment_response_header(answer.headers["payment-response"])
    tab = answer.json()
    assert (answer.status_code, paid.success) == (201, True)
    assert (tab["object"], tab["state"], tab["deposit"]) == ("tab", "open", "0.50")
    assert tab["balance_atomic"] == 500_000
    assert caller.balance() == 500_000


def test_a_client_of_version_1_opens_one_as_well(service, caller):
    (terms,) = httpx.post(f"{service.url}/v1/tabs", json=BODY).json()["accepts"]
    asked = terms | {"network": service.settings.network, "amount": terms["maxAmountRequired"]}
    payload = {"x402Version": 1, "scheme": "exact", "network": terms["network"]}
    payload["payload"] = caller.authorize(asked)
    headers = {"X-PAYMENT": base64.b64encode(json.dumps(payload).encode()).decode()}
    answer = httpx.post(f"{service.url}/v1/tabs", json=BODY, headers=headers, timeout=30)
    paid = decode_payment_response_header(answer.headers["x-payment-response"])
    assert (answer.status_code, paid.network) == (201, "base-sepolia")


def test_answers_are_taken_off_the_tab_and_the_rest_is_refunded_on_the_chain(service, caller, web3):
    tab = caller.open_tab(service).json()
    for _ in range(3):
        assert ask(service, tab["token"]).status_code == 200
    seen = at_tab(service, "GET", tab).json()
    assert (seen["answers"], seen["spent"], seen["balance"], seen["held"]) == (
        3, "0.03", "0.47", "0.00"
    )  # fmt: skip
    closed = at_tab(service, "DELETE", tab).json()
    assert (closed["state"], closed["balance"], closed["refunded"]) == ("closed", "0.00", "0.47")
    assert (closed["refund"]["state"], closed["refund"]["amount"]) == ("settled", "0.47")
    assert web3.eth.get_transaction_receipt(closed["refund"]["transaction"])["status"] == 1
    assert caller.balance() == 970_000
    assert at_tab(service, "DELETE", tab).json() == closed
    assert at_tab(service, "GET", tab).json() == closed
    assert caller.balance() == 970_000


def test_a_tab_that_was_used_up_closes_without_a_refund(open_service, caller, scripted):
    with open_service(scripted("Well."), price="0.05") as service:
        tab = caller.open_tab(service, "0.10").json()
        assert [ask(service, tab["token"]).status_code for _ in range(2)] == [200, 200]
        closed = at_tab(service, "DELETE", tab).json()
    assert (closed["state"], closed["spent"], closed["refund"]) == ("closed", "0.10", None)
    assert caller.balance() == 900_000


async def test_a_tab_for_ten_answers_gives_exactly_ten_to_200_questions_at_once(
    open_service, caller, scripted
):
    with open_service(scripted("Well.")) as service:
        tab = (await asyncio.to_thread(caller.open_tab, service, "0.10")).json()
        async with httpx.AsyncClient(
            headers=bearer(tab["token"]), timeout=60, limits=httpx.Limits(max_connections=200)
        ) as http:
            asked = (http.post(service.url + CHAT, json=HELLO) for _ in range(200))
            answers = await asyncio.gather(*asked)
        refused = [code(answer) for answer in answers if answer.status_code != 200]
        assert refused == [(402, "tab_exhausted")] * 190
        (row,) = service.rows("tabs")
        assert (row["spent"], row["balance"], row["held"]) == (100_000, 0, 0)
        assert len(service.rows("answers", "outcome = 'completed'")) == 10


def test_an_exhausted_tab_is_filled_again_by_failed_answers_only(open_service, caller, scripted):
    go_on = threading.Event()
    with open_service(scripted(go_on, RuntimeError("It broke.")), price="0.10") as service:
        tab = caller.open_tab(service, "0.10").json()
        with ThreadPoolExecutor(1) as pool:
            failing = pool.submit(ask, service, tab["token"])
            service.wait_until(service.local.started.is_set)
            assert code(ask(service, tab["token"])) == (402, "tab_exhausted")
            go_on.set()
            assert failing.result().status_code == 502
        service.local._script = ("Well.",)
        assert ask(service, tab["token"]).status_code == 200


def test_a_tab_is_not_closed_under_an_answer(open_service, caller, scripted):
    go_on = threading.Event()
    with open_service(scripted(go_on, "Well.")) as service, ThreadPoolExecutor(1) as pool:
        tab = caller.open_tab(service, "0.10").json()
        asked = pool.submit(ask, service, tab["token"])
        service.wait_until(service.local.started.is_set)
        assert code(at_tab(service, "DELETE", tab)) == (409, "tab_busy")
        go_on.set()
        assert asked.result().status_code == 200
        assert at_tab(service, "DELETE", tab).json()["state"] == "closed"
    assert caller.balance() == 990_000


def test_a_closed_tab_buys_nothing_more(service, caller):
    tab = caller.open_tab(service, "0.10").json()
    at_tab(service, "DELETE", tab)
    assert code(ask(service, tab["token"])) == (401, "tab_closed")


def test_an_idempotency_key_buys_one_answer_however_often_it_is_sent(service, caller):
    tab = caller.open_tab(service, "0.10").json()
    headers = bearer(tab["token"]) | {"Idempotency-Key": "once"}
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(httpx.post, service.url + CHAT, json=HELLO, headers=headers, timeout=60)
            for _ in range(4)
        ]
    answers = {future.result().headers["x-tinybrain-receipt"] for future in asked}
    assert len(answers) == 1
    assert at_tab(service, "GET", tab).json()["spent"] == "0.01"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_only_who_has_its_token_sees_or_closes_a_tab(service, caller, method):
    tab = caller.open_tab(service, "0.10").json()
    other = caller.open_tab(service, "0.10").json()
    nowhere = tab | {"id": "t_" + "0" * 32}
    strangers = [at_tab(service, method, it, other["token"]) for it in (tab, nowhere)]
    assert [code(answer) for answer in strangers] == [(401, "no_such_tab")] * 2
    assert strangers[0].json() == strangers[1].json()
    assert at_tab(service, method, tab, "tab_guess").status_code == 401
    unsigned = httpx.request(method, f"{service.url}/v1/tabs/{tab['id']}")
    assert code(unsigned) == (401, "no_tab_token")
    assert at_tab(service, "GET", tab).json()["state"] == "open"


def test_the_ledger_keeps_no_token(service, caller):
    token = caller.open_tab(service, "0.10").json()["token"]
    kept = [tuple(row) for table in ("tabs", "replies", "payments") for row in service.rows(table)]
    assert token not in str(kept)


# --- the same payment again


def send(service, headers, **more):
    return httpx.post(f"{service.url}/v1/tabs", json=BODY, headers=headers | more, timeout=30)


def test_a_payment_alone_is_not_told_the_token_again(service, caller):
    """Once it is settled, anybody can read it off the chain and send it."""
    payment = caller.headers(service, path="/v1/tabs", body=BODY)
    assert send(service, payment).status_code == 201
    again = send(service, payment)
    assert code(again) == (409, "payment_already_used")
    assert "Idempotency-Key" in again.json()["error"]["message"]
    assert caller.balance() == 500_000


def test_with_the_same_idempotency_key_the_same_payment_gets_the_same_tab(service, caller):
    payment = caller.headers(service, path="/v1/tabs", body=BODY)
    key = {"Idempotency-Key": "known to me alone"}
    with ThreadPoolExecutor(4) as pool:
        opened = [pool.submit(send, service, payment, **key) for _ in range(4)]
    answers = [future.result() for future in opened]
    assert [answer.status_code for answer in answers] == [201] * 4
    assert len({answer.json()["token"] for answer in answers}) == 1
    assert "payment-response" in answers[-1].headers
    for stranger in ({}, {"Idempotency-Key": "guess"}):
        assert code(send(service, payment, **stranger)) == (409, "payment_already_used")
    assert caller.balance() == 500_000


def test_a_payment_identifier_does_as_well_and_its_lack_does_not(service, caller):
    identifier = "pay_7d5d747be160e280504c099d984bcfe0"
    payment = caller.headers(service, path="/v1/tabs", body=BODY, identifier=identifier)
    first, again = send(service, payment), send(service, payment)
    assert (again.status_code, again.json()["token"]) == (201, first.json()["token"])
    payload = json.loads(base64.b64decode(payment["PAYMENT-SIGNATURE"]))
    for stolen in ({}, {"payment-identifier": {"info": {"id": identifier[:-1] + "1"}}}):
        payload["extensions"] = stolen
        header = base64.b64encode(json.dumps(payload).encode()).decode()
        refused = send(service, {"PAYMENT-SIGNATURE": header})
        assert code(refused) == (409, "payment_already_used")


def test_a_payment_for_an_answer_opens_no_tab(service, caller):
    payment = caller.headers(service)
    assert code(send(service, payment)) == (402, "payment_invalid")


# --- deposits that do not arrive, or late


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("tinybrain.api.tab_office.OPEN_WAIT_S", 0.2)


@pytest.mark.usefixtures("impatient")
def test_a_deposit_under_way_is_asked_for_again_by_who_can_prove_who_he_is(
    open_service, caller, monkeypatch
):
    with open_service() as service:
        payment = caller.headers(service, path="/v1/tabs", body=BODY)
        key = {"Idempotency-Key": "mine"}
        service.may_settle.clear()
        pending = send(service, payment, **key)
        assert code(pending) == (503, "payment_pending")
        assert pending.headers["retry-after"] == "1"
        service.may_settle.set()
        service.drain()
        monkeypatch.setattr("tinybrain.api.tab_office.OPEN_WAIT_S", 20)  # patient again
        assert send(service, payment, **key).json()["state"] == "open"
    assert caller.balance() == 500_000


@pytest.mark.usefixtures("impatient")
def test_who_cannot_gets_the_token_at_once_and_may_spend_later(open_service, caller):
    with open_service() as service:
        service.may_settle.clear()
        opening = caller.open_tab(service)
        tab = opening.json()
        assert (opening.status_code, tab["state"]) == (202, "opening")
        assert "payment-response" not in opening.headers
        assert code(ask(service, tab["token"])) == (402, "tab_opening")
        service.may_settle.set()
        service.drain()
        assert ask(service, tab["token"]).status_code == 200


def test_a_deposit_that_cannot_be_collected_opens_no_tab(open_service, caller, token, web3):
    with open_service() as service, ThreadPoolExecutor(1) as pool:
        payment = caller.headers(service, path="/v1/tabs", body=BODY)
        service.may_settle.clear()
        asked = pool.submit(send, service, payment)
        service.wait_until(lambda: service.rows("tabs"))
        caller.spend_elsewhere(payment, token, web3)
        service.may_settle.set()
        assert code(asked.result()) == (402, "payment_failed")
        (row,) = service.rows("tabs")
        assert (row["state"], row["balance"]) == ("closed", 0)


# --- what is offered


@pytest.mark.parametrize("deposit", ["0.09", "5.01", "-1", "0.1234567", "many", "NaN", 1, None])
def test_a_deposit_out_of_bounds_is_refused_before_it_is_paid(service, deposit):
    answer = httpx.post(f"{service.url}/v1/tabs", json={"deposit": deposit})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "deposit"


def test_who_cannot_refund_sells_no_tabs(open_service, caller):
    with open_service(pay_to=caller.address) as service:
        assert code(httpx.post(f"{service.url}/v1/tabs", json=BODY)) == (404, "tabs_not_offered")
