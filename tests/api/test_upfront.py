"""The upfront flow: settled before any work, refunded on the chain if the answer fails."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from x402.http.utils import decode_payment_response_header

from tests.api.callers import CHAT
from tinybrain.errors import LocalModelError

pytestmark = pytest.mark.chain
LOCAL = {"model": "tinychat", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
BROKEN = LocalModelError("It broke.")


@pytest.fixture
def treasury(devnet, usdc):
    """What the treasury has more than when the test began."""
    before = usdc(devnet.wallets.treasury.address)
    return lambda: usdc(devnet.wallets.treasury.address) - before


def payment_of(service, answer):
    """What the receipt tells of an answer's payment."""
    answer_id = answer.headers["x-tinybrain-receipt"]
    return httpx.get(f"{service.url}/v1/receipts/{answer_id}").json()["payment"]


def last_payment(service):
    """Likewise, where the answer failed and told no receipt."""
    (row,) = service.rows("answers", "rowid = (SELECT max(rowid) FROM answers)")
    return httpx.get(f"{service.url}/v1/receipts/{row['id']}").json()["payment"]


def paid(answer):
    return decode_payment_response_header(answer.headers["payment-response"])


class Unreachable:
    """Stands before Settlement, and is away so many times."""

    def __init__(self, settle, times):
        self._settle = settle
        self.times = times

    async def __call__(self, answer_id):
        if self.times:
            self.times -= 1
            raise ConnectionError("Settlement restarts")
        return await self._settle(answer_id)


@pytest.mark.parametrize("path", [CHAT, "/chat/completions"])
def test_a_stream_tells_its_settlement_before_its_first_byte(open_service, caller, scripted, path):
    go_on = threading.Event()
    with open_service(scripted("Well, ", go_on, "yes."), flow="upfront") as service:
        body, headers = LOCAL | {"stream": True}, caller.headers(service, path=path)
        with httpx.stream(
            "POST", service.url + path, json=body, headers=headers, timeout=30
        ) as answer:
            assert (answer.status_code, paid(answer).success) == (200, True)
            assert caller.balance() == 990_000
            go_on.set()
            assert "yes." in answer.read().decode()
        told = payment_of(service, answer)
    assert (told["flow"], told["state"]) == ("upfront", "settled")
    assert told["transaction"] == paid(answer).transaction


def test_a_whole_answer_is_not_worked_on_before_it_is_paid(open_service, caller, scripted):
    with open_service(scripted("Well."), flow="upfront") as service, ThreadPoolExecutor(1) as pool:
        service.may_settle.clear()
        asked = pool.submit(caller.ask, service, LOCAL)
        service.wait_until(lambda: service.rows("payments"))
        assert not service.local.started.wait(0.3)
        service.may_settle.set()
        answer = asked.result()
    told = answer.json()["x_tinybrain"]["payment"]
    assert (answer.status_code, told["state"], told["flow"]) == (200, "settled", "upfront")
    assert told["transaction"] == paid(answer).transaction
    assert caller.balance() == 990_000


@pytest.mark.parametrize(("script", "stream"), [((), False), ((), True), (("Well, ",), True)])
def test_an_answer_that_fails_is_refunded_on_the_chain(
    open_service, caller, scripted, treasury, script, stream
):
    with open_service(scripted(*script, BROKEN), flow="upfront") as service:
        answer = caller.ask(service, LOCAL | {"stream": stream})
        assert answer.status_code == (200 if script else 502)
        assert "local_model_failed" in answer.text
        assert (caller.balance(), treasury()) == (990_000, 10_000)
        service.drain()
        told = last_payment(service)
        assert service.unfinished() == []
    assert (told["state"], told["refund"]["state"]) == ("refunded", "settled")
    assert (told["refund"]["amount"], told["refund"]["transaction"] is not None) == (10_000, True)
    assert (caller.balance(), treasury()) == (1_000_000, 0)


def test_a_payment_that_was_refunded_buys_no_second_answer(open_service, caller, scripted):
    with open_service(scripted(BROKEN), flow="upfront") as service:
        headers = caller.headers(service)
        caller.ask(service, LOCAL, headers=headers)
        service.drain()
        again = caller.ask(service, LOCAL, headers=headers)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "payment_already_used")
    assert caller.balance() == 1_000_000


@pytest.mark.parametrize("stream", [False, True])
def test_a_settlement_that_is_away_for_a_moment_is_asked_again(
    open_service, caller, scripted, stream
):
    service = open_service(scripted("Well."), flow="upfront")
    service._settle = Unreachable(service._settle, times=1)
    with service:
        answer = caller.ask(service, LOCAL | {"stream": stream})
        assert (answer.status_code, service._settle.times) == (200, 0)
        assert (caller.balance(), payment_of(service, answer)["state"]) == (990_000, "settled")


def test_a_repeated_payment_gets_the_same_answer(open_service, caller, scripted):
    with open_service(scripted("Well."), flow="upfront") as service:
        headers = caller.headers(service)
        first, again = (caller.ask(service, LOCAL, headers=headers) for _ in range(2))
        assert (first.status_code, again.status_code) == (200, 200)
        assert again.json()["choices"] == first.json()["choices"]
        assert payment_of(service, again) == payment_of(service, first)
        assert len(service.rows("answers")) == 1
    assert paid(again).transaction == paid(first).transaction
    assert caller.balance() == 990_000


def test_a_payer_is_trusted_after_a_settled_answer(open_service, caller, scripted):
    with open_service(scripted("Well."), trust_after=1) as service:
        answers = [caller.ask(service, LOCAL | {"stream": True}) for _ in range(2)]
        flows = [payment_of(service, answer)["flow"] for answer in answers]
    assert flows == ["upfront", "authorization"]
    assert ["payment-response" in answer.headers for answer in answers] == [True, False]
    assert caller.balance() == 980_000


@pytest.mark.parametrize("sent", [True, False])
def test_refunds_earn_no_trust_whether_they_are_sent_yet_or_not(
    open_service, caller, scripted, sent
):
    with open_service(scripted(BROKEN), trust_after=3) as service:
        for _ in range(3):
            assert caller.ask(service, LOCAL).status_code == 502
            if sent:
                service.drain()
        own = service.rows("payments", "purpose = 'answer'")
        assert {row["state"] for row in own} == {"refunded" if sent else "settled"}
        caller.ask(service, LOCAL)
        assert last_payment(service)["flow"] == "upfront"
        service.drain()
    assert caller.balance() == 1_000_000


def test_who_was_refunded_ten_times_in_an_hour_is_asked_to_wait(open_service, caller, scripted):
    with open_service(scripted(BROKEN), flow="upfront") as service:
        answers = [caller.ask(service, LOCAL) for _ in range(11)]
        service.drain()
    assert [answer.status_code for answer in answers] == [502] * 10 + [429]
    assert answers[-1].json()["error"]["code"] == "too_many_refunds"
    assert caller.balance() == 1_000_000
