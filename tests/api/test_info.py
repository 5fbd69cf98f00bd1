"""What can be asked for free: health, statistics, metrics, models, receipts."""

import contextlib
import sqlite3

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.routing.calibration.worlds import router, world
from tinybrain.routing.calibration.measuring import Prices, calibrate

pytestmark = pytest.mark.chain
HELLO = {"messages": [{"role": "user", "content": "Hello, who are you?"}], "max_tokens": 8}


@pytest.fixture
def get(service):
    return lambda path: httpx.get(service.url + path)


def test_the_index_says_what_it_costs_and_where_to_ask(get):
    assert get("/").json()["price"] == "$0.01"


def test_health_tells_where_the_money_goes(get, devnet):
    answer = get("/health").json()
    assert (answer["status"], answer["payTo"]) == ("ok", devnet.wallets.treasury.address)


def test_health_fails_while_the_ledger_cannot_be_read(open_service):
    with open_service() as service:
        path = service.settings.ledger.removeprefix("sqlite+aiosqlite:///")
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("ALTER TABLE answers RENAME TO lost")
        answer = httpx.get(f"{service.url}/health")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ledger_unavailable")


def test_statistics_count_answers_and_money_and_tell_latencies(open_service, caller):
    with open_service() as service:
        for _ in range(2):
            caller.ask(service, HELLO)
        caller.ask(service, HELLO | {"messages": []})
        told = httpx.get(f"{service.url}/stats").json()
    assert told["answers"] == {"completed": 2}
    assert told["payments"] == {"settled": {"count": 2, "amount": 20_000}}
    latency = told["latency_ms"]["tinychat/auto"]
    assert latency["count"] == 2
    for summary in (latency["first_token"], latency["total"]):
        assert 0 < summary["p50"] <= summary["p95"]
        assert summary["average"] > 0
    assert latency["first_token"]["p50"] <= latency["total"]["p50"]


def test_metrics_count_what_happened(open_service, caller):
    with open_service() as service:
        caller.ask(service, HELLO)
        httpx.get(f"{service.url}/nothing-like-that")
        text = httpx.get(f"{service.url}/metrics").text
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["tinybrain_answers_total", "auto", "completed", "tinychat"] == 1
    assert samples["tinybrain_claims_total", "claimed"] == 1
    assert samples["tinybrain_settlements_total", "settled"] == 1
    assert samples["tinybrain_revenue_usdc_atomic_total",] == 10_000
    assert samples["tinybrain_time_to_first_token_seconds_count", "auto", "tinychat"] == 1
    assert samples["tinybrain_requests_total", "200", "chat_completions"] == 1
    assert samples["tinybrain_requests_total", "404", "unknown"] == 1


def test_the_models_are_listed_with_their_price(get, service):
    cards = get("/v1/models").json()["data"]
    assert [card["id"] for card in cards] == [
        "tinybrain",
        "tinychat",
        service.settings.upstream_model,
    ]
    assert {card["pricing"]["request"] for card in cards} == {"0.01"}
    assert {card["pricing"]["amount"] for card in cards} == {"10000"}


def test_a_model_with_a_slash_in_its_name_has_a_card(get):
    card = get("/v1/models/deepseek/deepseek-reasoner").json()
    assert (card["id"], card["owned_by"]) == ("deepseek/deepseek-reasoner", "deepseek")


def test_what_is_bought_tells_nothing_of_tinychat(get):
    assert "checkpoint" not in get("/v1/models/deepseek/deepseek-reasoner").json()


@pytest.mark.parametrize("name", ["tinybrain", "tinychat"])
def test_tinychats_card_tells_its_checkpoint_and_its_model_card(get, service, name):
    card = get(f"/v1/models/{name}").json()
    assert (card["id"], card["object"], card["owned_by"]) == (name, "model", "tinybrain")
    assert card["pricing"]["amount"] == "10000"
    assert card["checkpoint"] == service.local.checkpoint_hash
    assert card["parameters"] == service.local.parameters
    assert card["card"].startswith("# TinyChat")


def test_a_card_has_the_report_of_the_router_in_use(open_service, tmp_path):
    made = calibrate(world(), [], fit=router, prices=Prices(10_000, 1_000), seed=0)
    made.write(tmp_path / "router.json")
    with open_service(router=tmp_path / "router.json") as service:
        card = httpx.get(f"{service.url}/v1/models/tinychat").json()
    assert card["calibration"] == made.report.model_dump(mode="json")


def test_an_unknown_model_has_none(get):
    answer = get("/v1/models/gpt-6")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("answer_id", ["ans_" + "0" * 32, "1", "ans_' OR 1=1 --"])
def test_an_unknown_receipt_is_not_found(get, answer_id):
    assert get(f"/v1/receipts/{answer_id}").status_code == 404


def test_a_receipt_may_not_be_cached(service, caller, get):
    answer = caller.ask(service, HELLO)
    kept = get(f"/v1/receipts/{answer.headers['x-tinybrain-receipt']}")
    assert kept.headers["cache-control"] == "private, no-store"


def test_a_receipt_tells_nothing_that_could_be_paid_with(service, caller, get):
    headers = caller.headers(service)
    answer = caller.ask(service, HELLO, headers=headers)
    kept = get(f"/v1/receipts/{answer.headers['x-tinybrain-receipt']}").text
    assert "signature" not in kept
    assert "nonce" not in kept


def test_a_browsers_preflight_is_free(service):
    asked = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "payment-signature,content-type",
    }
    answer = httpx.options(f"{service.url}/v1/chat/completions", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "payment-signature" in answer.headers["access-control-allow-headers"]


def test_a_browser_may_read_the_challenge(service):
    answer = httpx.post(
        f"{service.url}/v1/chat/completions", json=HELLO, headers={"Origin": "https://a.example"}
    )
    assert answer.status_code == 402
    assert "PAYMENT-REQUIRED" in answer.headers["access-control-expose-headers"]


def test_health_warns_of_little_gas_and_does_not_wait_for_a_settlement_that_is_away(
    open_service, monkeypatch
):
    with open_service() as service:
        url = f"{service.url}/health"
        with monkeypatch.context() as patience:  # an answer, however late, is none that is away
            patience.setattr("tinybrain.api.info_routes.SETTLEMENT_WAIT_S", 30)
            assert httpx.get(url, timeout=40).json()["settlement"] == "ok"
            service.is_gas_low = True
            assert httpx.get(url, timeout=40).json()["settlement"] == "gas_low"
        service.may_settle.clear()
        answer = httpx.get(url, timeout=10)
        assert (answer.status_code, answer.json()["settlement"]) == (200, "unknown")
