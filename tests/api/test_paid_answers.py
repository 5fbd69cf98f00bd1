"""An answer is sold for a cent, and the larger model's bought for a tenth of it."""

import httpx
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion
from x402.http.utils import decode_payment_response_header

pytestmark = pytest.mark.chain
HELLO = {"messages": [{"role": "user", "content": "Hello, who are you?"}], "max_tokens": 32}
THINK = {
    "messages": [{"role": "user", "content": "think hard: why is the sky blue?"}],
    "max_tokens": 8,
}


@pytest.fixture
def moved(devnet, usdc, caller):
    """What caller, treasury and provider have more than when the test began."""
    addresses = [caller.address, devnet.wallets.treasury.address, devnet.wallets.provider.address]
    before = [usdc(address) for address in addresses]
    return lambda: [usdc(address) - then for address, then in zip(addresses, before, strict=True)]


def receipt(service, answer):
    return httpx.get(f"{service.url}/v1/receipts/{answer['x_tinybrain']['receipt']}").json()


def test_tinychat_answers_what_it_knows_for_one_cent(service, caller, moved):
    answer = caller.ask(service, HELLO).json()
    assert answer["model"] == "tinychat"
    assert "TinyChat" in answer["choices"][0]["message"]["content"]
    assert moved() == [-10_000, 10_000, 0]


def test_a_hard_question_is_bought_for_a_tenth_of_the_price(service, caller, moved):
    answer = caller.ask(service, THINK).json()
    assert answer["model"] == "blockrun"
    assert answer["x_tinybrain"]["escalation_reason"] == "keyword"
    assert len(answer["choices"][0]["message"]["content"]) > 0
    assert moved() == [-10_000, 9_000, 1_000]


async def test_the_stock_client_pays_for_both_kinds_of_answer(service, caller, moved):
    async with caller.http() as http:
        for body in (HELLO, THINK):
            answer = await http.post(f"{service.url}/v1/chat/completions", json=body)
            assert answer.status_code == 200
    assert moved() == [-20_000, 19_000, 1_000]


def test_the_receipt_names_the_transaction_that_the_chain_has(service, caller, web3):
    kept = receipt(service, caller.ask(service, HELLO).json())
    payment = kept["payment"]
    assert (kept["outcome"], kept["price"], kept["cost"]) == ("completed", 10_000, 0)
    assert (payment["state"], payment["payer"]) == ("settled", caller.address.lower())
    assert web3.eth.get_transaction_receipt(payment["transaction"])["status"] == 1


def test_the_receipt_names_the_purchase_that_the_chain_has(service, caller, web3):
    kept = receipt(service, caller.ask(service, THINK).json())
    (purchase,) = kept["purchases"]
    assert (kept["cost"], purchase["amount"], purchase["state"]) == (1_000, 1_000, "paid")
    assert web3.eth.get_transaction_receipt(purchase["transaction"])["status"] == 1


def test_a_whole_answer_is_settled_before_it_is_sent(service, caller):
    answer = caller.ask(service, HELLO)
    paid = decode_payment_response_header(answer.headers["payment-response"])
    told = answer.json()["x_tinybrain"]["payment"]
    assert paid.success
    assert paid.payer == caller.address.lower()
    assert (told["state"], told["transaction"]) == ("settled", paid.transaction)
    assert answer.headers["cache-control"] == "private, no-store"


def test_a_whole_answer_that_cannot_be_settled_in_time_is_sent_all_the_same(
    open_service, caller, monkeypatch
):
    monkeypatch.setattr("tinybrain.api.chat_routes.SETTLE_WAIT_S", 0.1)
    with open_service() as service:
        service.may_settle.clear()
        answer = caller.ask(service, HELLO)
        assert answer.status_code == 200
        assert "payment-response" not in answer.headers
        assert answer.json()["x_tinybrain"]["payment"]["state"] == "served"
        service.drain()
        assert receipt(service, answer.json())["payment"]["state"] == "settled"


def test_the_perplexity_of_the_last_user_message_is_told_beside_that_of_all(service, caller):
    told = caller.ask(service, HELLO).json()["x_tinybrain"]
    assert told["user_perplexity"] != told["perplexity"]
    assert min(told["user_perplexity"], told["perplexity"]) > 1
    assert caller.ask(service, THINK).json()["x_tinybrain"]["user_perplexity"] is None


def test_a_biased_token_is_never_said_and_one_that_does_not_exist_costs_nothing(service, caller):
    said = caller.ask(service, HELLO | {"max_tokens": 1, "model": "tinychat"}).json()
    (first,) = service.local._tokenizer.encode(said["choices"][0]["message"]["content"])
    asked = HELLO | {"max_tokens": 1, "model": "tinychat", "logit_bias": {first: -100}}
    assert caller.ask(service, asked).json()["choices"] != said["choices"]
    answer = caller.ask(service, asked | {"logit_bias": {"4096": 1}})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "logit_bias")
    assert caller.balance() == 980_000


def test_openais_own_client_reads_logprobs_and_a_repetition_has_the_same(service, caller):
    headers, asked = caller.headers(service), HELLO | {"logprobs": True, "top_logprobs": 3}
    first, again = [caller.ask(service, asked, headers=headers).json() for _ in range(2)]
    assert again["choices"] == first["choices"]
    (choice,) = ChatCompletion.model_validate(first, strict=True).choices
    told = choice.logprobs.content
    assert "".join(token.token for token in told) == choice.message.content
    assert all(bytes(token.bytes).decode() == token.token for token in told)
    assert all(token.top_logprobs[0].logprob >= token.logprob for token in told)
    assert {len(token.top_logprobs) for token in told} == {3}


def test_nobody_is_told_logprobs_unasked_and_none_are_known_of_a_bought_answer(service, caller):
    assert caller.ask(service, HELLO).json()["choices"][0]["logprobs"] is None
    bought = caller.ask(service, THINK | {"logprobs": True}).json()
    assert (bought["model"], bought["choices"][0]["logprobs"]) == ("blockrun", None)


def test_the_usage_counts_tokens(service, caller):
    usage = caller.ask(service, HELLO | {"max_tokens": 5}).json()["usage"]
    assert usage["completion_tokens"] == 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + 5


@pytest.mark.parametrize(
    ("model", "content"), [("tinychat", "think hard"), ("deepseek/deepseek-reasoner", "Hello")]
)
def test_a_caller_may_choose_who_answers(service, caller, model, content):
    body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 8}
    told = caller.ask(service, body).json()["x_tinybrain"]
    assert told["requested_model"] == model
    assert told["answered_by"] == ("tinychat" if model == "tinychat" else "upstream")


def test_openais_own_client_asks_with_the_operators_key(service):
    key = service.settings.api_key.get_secret_value()
    client = OpenAI(
        base_url=f"{service.url}/v1", api_key="unused", default_headers={"X-API-Key": key}
    )
    with client:
        answer = client.chat.completions.create(model="tinybrain", **HELLO)
        assert "TinyChat" in answer.choices[0].message.content
        chunks = list(client.chat.completions.create(model="tinybrain", stream=True, **HELLO))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) != ""
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
