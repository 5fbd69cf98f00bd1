"""A service that labels its own answers, with the real TinyChat and a larger model that is paid."""

import httpx
import pytest

from tests.api.callers import CHAT
from tinybrain.api.assembly import _budget_per_day
from tinybrain.config import load_settings
from tinybrain.devnet.upstream import PRICE

pytestmark = pytest.mark.chain
KNOWN = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
UNKNOWN = {"messages": [{"role": "user", "content": "What is the boiling point of osmium?"}]}
GREEDY = {"temperature": 0, "max_tokens": 32}


@pytest.fixture
def open_auditing(open_service):
    """Opens a service that chooses every answer."""

    def build(**changes):
        return open_service(audit_share=0.05, **changes)

    return build


def ask(service, body):
    service.gateway.online.auditor._draw = lambda: 0.0
    headers = {"X-API-Key": "operator-key"}
    return httpx.post(service.url + CHAT, json=body | GREEDY, headers=headers, timeout=60).json()


def labelled(service):
    service.run(service.gateway.online.auditor.settled())
    text = httpx.get(f"{service.url}/metrics").text
    return [line for line in text.splitlines() if line.startswith("tinybrain_audits_total{")]


def test_an_answer_of_tinychat_is_audited_and_the_books_tell_the_audit_from_the_answer(
    open_auditing,
):
    with open_auditing() as service:
        answer = ask(service, KNOWN)["x_tinybrain"]
        assert answer["answered_by"] == "tinychat"
        (line,) = labelled(service)
        assert 'source="audit"' in line
        (audit,) = service.rows("purchases")
        receipt = httpx.get(answer["receipt_url"].replace(service.settings.public_url, service.url))
        told = httpx.get(f"{service.url}/stats").json()
    assert audit["answer_id"] == answer["receipt"].replace("ans_", "aud_")
    assert (audit["state"], audit["amount"]) == ("paid", PRICE)
    assert (receipt.json()["cost"], receipt.json()["purchases"]) == (0, [])
    assert (told["cost"], told["profit"]) == (PRICE, -PRICE)


def test_a_bought_answer_gives_its_label_for_nothing(open_auditing):
    with open_auditing() as service:
        answer = ask(service, UNKNOWN)["x_tinybrain"]
        assert answer["answered_by"] == "upstream"
        labelled(service)
        bought = service.rows("purchases")
        (judged,) = service.rows("answers")
    assert [purchase["answer_id"] for purchase in bought] == [answer["receipt"]]
    assert judged["checkpoint"] == service.gateway.online.checkpoint


def test_what_no_gate_judged_is_not_labelled(open_auditing):
    with open_auditing() as service:
        said = {"messages": [{"role": "user", "content": "Who are you?"}]}
        for body in (said, KNOWN | {"model": "tinychat"}, KNOWN | {"n": 2}):
            ask(service, body)
        assert labelled(service) == []
        assert service.rows("purchases", "answer_id LIKE 'aud%'") == []


def test_an_audit_over_its_budget_is_not_bought_and_the_caller_sees_nothing_of_it(open_auditing):
    with open_auditing(audit_budget_per_day="0.0001") as service:
        answers = [ask(service, KNOWN) for _ in range(2)]
        (line,) = labelled(service)
        assert 'outcome="budget"' in line
        assert service.rows("purchases") == []
    assert all(answer["choices"][0]["message"]["content"] for answer in answers)


def test_with_a_key_audits_are_counted_at_the_cost_of_the_dearest_call(open_auditing):
    dead = {"upstream_api_key": "key", "upstream_url": "http://127.0.0.1:9/v1"}
    with open_auditing(**dead, max_cost_per_call="0.01", audit_budget_per_day="0.019") as service:
        for _ in range(2):
            ask(service, KNOWN)
        lines = labelled(service)
    assert [line.endswith(" 1.0") for line in lines] == [True, True]
    assert {'outcome="failed"' in line for line in lines} == {True, False}
    assert {'outcome="budget"' in line for line in lines} == {True, False}


def test_a_larger_model_that_is_dead_costs_a_label_and_no_answer(open_auditing):
    with open_auditing(upstream_url="http://127.0.0.1:9/v1") as service:
        assert ask(service, KNOWN)["x_tinybrain"]["answered_by"] == "tinychat"
        (line,) = labelled(service)
        assert 'outcome="failed"' in line


@pytest.mark.parametrize(
    ("caps", "per_day"),
    [
        ({}, 5_000_000),
        ({"max_cost_per_day": "0.7"}, 700_000),
        ({"max_cost_per_provider": "0.5"}, 500_000),
        ({"max_cost_per_hour": "0.01"}, 240_000),
    ],
)
def test_the_day_is_paced_within_the_least_of_the_caps(caps, per_day):
    assert _budget_per_day(load_settings(**caps)) == per_day


def test_statistics_tell_where_the_gate_stands(open_auditing):
    with open_auditing(max_cost_per_provider="0.5") as service:
        service.wait_until(lambda: service.gateway.online.standing)
        told = httpx.get(f"{service.url}/stats").json()["routing"]
        assert told["target"] == {"local_error": 0.05}
        assert (told["judged"], told["drift"]) == (0, None)
        budget = {"per_day": 500_000, "spent": 0, "sets_the_threshold": False}
        assert told["budget"] == budget
