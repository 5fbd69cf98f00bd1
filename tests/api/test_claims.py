"""One authorization buys at most one answer."""

import base64
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tinybrain.devnet.token import mint
from tinybrain.errors import LocalModelError

pytestmark = pytest.mark.chain
HELLO = {"messages": [{"role": "user", "content": "Hello, who are you?"}], "max_tokens": 16}
LOCAL = HELLO | {"model": "tinychat"}


def authorization_in(headers):
    payload = json.loads(base64.b64decode(headers["PAYMENT-SIGNATURE"]))
    return payload["payload"]["authorization"], payload


def encode(payload):
    return {"PAYMENT-SIGNATURE": base64.b64encode(json.dumps(payload).encode()).decode()}


def answers_of(service, caller):
    """How many answers a caller's payments bought."""
    paid = f"SELECT answer_id FROM payments WHERE payer = '{caller.address.lower()}'"
    return len(service.rows("answers", f"id IN ({paid})"))


def content(answer):
    return answer.json()["choices"][0]["message"]["content"]


def test_eight_copies_at_once_get_the_one_answer_that_is_made_and_settled(service, caller):
    headers = caller.headers(service)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: caller.ask(service, HELLO, headers=headers), range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert len({answer.json()["x_tinybrain"]["receipt"] for answer in answers}) == 1
    assert answers_of(service, caller) == 1
    assert caller.balance() == 990_000
    assert service.unfinished() == []


def test_a_payment_sent_again_gets_the_answer_that_it_bought(service, caller):
    headers = caller.headers(service)
    first = caller.ask(service, HELLO, headers=headers)
    again = caller.ask(service, HELLO, headers=headers)
    assert again.status_code == 200
    assert content(again) == content(first)
    assert again.headers["x-tinybrain-receipt"] == first.headers["x-tinybrain-receipt"]
    assert answers_of(service, caller) == 1
    assert caller.balance() == 990_000


def test_once_its_answer_is_not_kept_any_more_a_payment_is_told_its_receipt(open_service, caller):
    with open_service(replay_s=0) as service:
        headers = caller.headers(service)
        first = caller.ask(service, HELLO, headers=headers).json()
        time.sleep(0.01)
        service.drain()
        again = caller.ask(service, HELLO, headers=headers)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "payment_already_used")
    assert first["x_tinybrain"]["receipt"] in again.json()["error"]["message"]
    assert again.headers["x-should-retry"] == "false"
    assert caller.balance() == 990_000


def test_a_payment_for_one_question_buys_no_answer_to_another(service, caller):
    headers = caller.headers(service)
    caller.ask(service, HELLO, headers=headers)
    again = caller.ask(service, HELLO | {"max_tokens": 17}, headers=headers)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "payment_already_used")
    assert answers_of(service, caller) == 1


def test_a_payment_for_one_format_does_not_buy_in_the_other_as_well(service, caller):
    headers = caller.headers(service)
    caller.ask(service, HELLO, headers=headers)
    again = caller.ask(service, HELLO, headers=headers, path="/chat/completions")
    assert again.status_code == 409


def test_another_spelling_of_an_authorization_is_the_same(service, caller):
    headers = caller.headers(service)
    first = caller.ask(service, HELLO, headers=headers)
    authorization, payload = authorization_in(headers)
    authorization["nonce"] = "0x" + authorization["nonce"][2:].upper()
    authorization["from"] = authorization["from"].lower()
    again = caller.ask(service, HELLO, headers=encode(payload))
    assert again.headers["x-tinybrain-receipt"] == first.headers["x-tinybrain-receipt"]
    assert answers_of(service, caller) == 1
    assert caller.balance() == 990_000


def test_the_other_form_of_a_signature_buys_nothing(service, caller):
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    _, payload = authorization_in(caller.headers(service))
    signature = bytes.fromhex(payload["payload"]["signature"][2:])
    s = order - int.from_bytes(signature[32:64])
    mirrored = signature[:32] + s.to_bytes(32) + bytes([27 + 28 - signature[64]])
    payload["payload"]["signature"] = "0x" + mirrored.hex()
    assert caller.ask(service, HELLO, headers=encode(payload)).status_code == 402


def test_after_a_failed_answer_the_same_payment_buys_another(open_service, caller, scripted):
    with open_service(scripted(LocalModelError("It broke."))) as service:
        headers = caller.headers(service)
        assert caller.ask(service, LOCAL, headers=headers).status_code == 502
        assert service.outcome() == ("failed", "released")
        service.local._script = ("Well.",)
        assert caller.ask(service, LOCAL, headers=headers).status_code == 200
    assert caller.balance() == 990_000


def test_a_payer_who_spends_the_nonce_elsewhere_meanwhile_gets_no_answer(
    open_service, caller, scripted, token, web3
):
    spent = threading.Event()
    with open_service(scripted("Well.", spent)) as service, ThreadPoolExecutor(1) as pool:
        headers = caller.headers(service)
        asked = pool.submit(caller.ask, service, LOCAL, headers=headers)
        service.wait_until(service.local.started.is_set)
        caller.spend_elsewhere(headers, token, web3)
        spent.set()
        answer = asked.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (402, "payment_failed")
        assert "Well" not in answer.text
        assert service.outcome() == ("completed", "released")


@pytest.mark.parametrize("limit", ["max_unsettled_per_payer", "max_unsettled"])
def test_one_cent_buys_a_bounded_number_of_answers_at_once(
    open_service, pauper, scripted, web3, token, limit
):
    mint(web3, token, pauper.address, 10_000)
    speak = threading.Event()
    body = LOCAL | {"stream": True}
    with (
        open_service(scripted(speak, "Well."), **{limit: "0.03"}) as service,
        ThreadPoolExecutor(12) as pool,
    ):
        payments = [pauper.headers(service) for _ in range(12)]
        asked = [pool.submit(pauper.ask, service, body, headers=paid) for paid in payments]
        service.wait_until(lambda: sum(future.done() for future in asked) == 9)
        refused = [future.result() for future in asked if future.done()]
        speak.set()
        answers = [future.result() for future in asked]
    assert {answer.json()["error"]["code"] for answer in refused} == {"too_many_unsettled"}
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 9
