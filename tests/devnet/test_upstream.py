"""The paid larger model, through BlockRun's own client and the stock x402 client."""

import asyncio
import json
import time
from itertools import pairwise

import httpx
import pytest
from x402 import x402Client
from x402.http.clients.httpx import x402AsyncTransport
from x402.http.utils import (
    decode_payment_required_header,
    decode_payment_response_header,
    encode_payment_signature_header,
)
from x402.mechanisms.evm.exact import register_exact_evm_client

from tinybrain.devnet.chain import connect
from tinybrain.devnet.token import place_usdc
from tinybrain.devnet.upstream import ALIAS, MAX_BODY_BYTES, PRICE
from tinybrain.devnet.wallets import private_key

pytestmark = [pytest.mark.chain, pytest.mark.timeout(180)]  # hundreds of tokens
BLOCKRUN = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
STORY = [{"role": "user", "content": "Tell me a long story about a fox."}]
A_BURST_S = 0.002  # what was written at once arrives faster; a token takes some 16 ms
ORDER = {"model": ALIAS, "messages": QUESTION, "max_tokens": 12, "temperature": 0}


@pytest.fixture
def income(devnet, devnet_tools):
    """How much the provider earned since the test began."""
    token = place_usdc(connect(devnet.rpc_url), devnet_tools)
    balance = token.functions.balanceOf(devnet.wallets.provider.address)
    before = balance.call()
    return lambda: balance.call() - before


@pytest.fixture
async def http():
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def url(devnet):
    return f"{devnet.upstream_url}/chat/completions"


@pytest.fixture
async def paid(devnet, http, url):
    """Headers of a payment that was never sent."""
    challenge = decode_payment_required_header(
        (await http.post(url, json=ORDER)).headers["payment-required"]
    )
    client = x402Client()
    register_exact_evm_client(client, devnet.wallets.caller)
    payload = await client.create_payment_payload(challenge)
    return {"PAYMENT-SIGNATURE": encode_payment_signature_header(payload)}


def events(body):
    return [line.removeprefix("data: ") for line in body.split("\n\n") if line]


def text(body):
    chunks = [json.loads(event) for event in events(body) if event != "[DONE]"]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(delta.get("content", "") for delta in deltas)


@pytest.fixture
def blockrun(devnet, tmp_path, monkeypatch):
    """BlockRun's client; its import writes under the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    from blockrun_llm import LLMClient  # noqa: PLC0415  # see above

    api = devnet.upstream_url.removesuffix("/v1")
    with LLMClient(private_key(devnet.wallets.caller), api_url=api) as client:
        yield client


@BLOCKRUN
def test_blockruns_client_buys_an_answer_for_exactly_the_price(blockrun, income):
    answer = blockrun.chat_completion(ALIAS, QUESTION, max_tokens=12, temperature=0)
    assert answer.choices[0].message.content
    assert 0 < answer.usage.completion_tokens <= 12
    assert (answer.cost_usd, income()) == (0.001, PRICE)
    assert answer.settlement["tx_hash"].startswith("0x")


@BLOCKRUN
def test_blockruns_client_streams(blockrun, income):
    chunks = list(blockrun.chat_completion_stream(ALIAS, QUESTION, max_tokens=12, temperature=0))
    deltas = [choice.delta.content for chunk in chunks for choice in chunk.choices]
    assert len([delta for delta in deltas if delta]) > 3
    assert income() == PRICE


async def test_the_stock_x402_client_pays_and_gets_the_tokens_as_they_come(devnet, url, income):
    client = x402Client()
    register_exact_evm_client(client, devnet.wallets.caller)
    order = {**ORDER, "messages": STORY, "stream": True, "max_tokens": 100}
    async with (
        httpx.AsyncClient(transport=x402AsyncTransport(client), timeout=60) as http,
        http.stream("POST", url, json=order) as response,
    ):
        assert decode_payment_response_header(response.headers["payment-response"]).success
        arrived = [time.monotonic() async for _ in response.aiter_raw()]
    assert sum(later - earlier > A_BURST_S for earlier, later in pairwise(arrived)) > 20
    assert income() == PRICE


async def test_the_answer_says_which_model_it_really_was(http, url, paid):
    answer = (await http.post(url, json=ORDER, headers=paid)).json()
    assert (answer["model"], answer["system_fingerprint"]) == (ALIAS, "smollm2-135m-instruct")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_payment_sent_again_gets_the_same_answer_and_pays_once(
    http, url, paid, income, stream
):
    order = {**ORDER, "stream": stream, "temperature": 1}
    first, second = [await http.post(url, json=order, headers=paid) for _ in range(2)]
    assert (first.status_code, first.content) == (200, second.content)
    assert second.headers["payment-response"] == first.headers["payment-response"]
    assert income() == PRICE


async def test_of_concurrent_copies_of_a_payment_one_is_served(http, url, paid, income):
    # Long, so that the first is not over before the last has come.
    order = {**ORDER, "messages": STORY, "stream": True, "max_tokens": 300}
    sent = [http.post(url, json=order, headers=paid) for _ in range(5)]
    statuses = sorted(answer.status_code for answer in await asyncio.gather(*sent))
    assert statuses == [200, 409, 409, 409, 409]
    assert income() == PRICE


async def test_a_payment_for_one_question_does_not_buy_another(http, url, paid, income):
    await http.post(url, json=ORDER, headers=paid)
    other = await http.post(url, json={**ORDER, "max_tokens": 13}, headers=paid)
    assert (other.status_code, other.json()["code"]) == (409, "PAYMENT_REPLAY")
    assert income() == PRICE


async def test_an_answer_that_fails_is_not_charged_and_the_payment_stays_good(
    http, url, paid, income
):
    too_long = {**ORDER, "messages": [{"role": "user", "content": "word " * 6000}]}
    failed = await http.post(url, json=too_long, headers=paid)
    assert (failed.status_code, failed.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert income() == 0
    assert (await http.post(url, json=ORDER, headers=paid)).status_code == 200


async def test_a_caller_who_leaves_stops_the_work_and_gets_another_try_for_the_same_payment(
    http, url, paid, income
):
    order = {**ORDER, "messages": STORY, "stream": True, "max_tokens": 1000}
    async with http.stream("POST", url, json=order, headers=paid) as response:
        assert response.status_code == 200
        await anext(response.aiter_lines())
    left = time.monotonic()
    while True:
        async with http.stream("POST", url, json=order, headers=paid) as response:
            if response.status_code == 200:
                waited_s = time.monotonic() - left
                await response.aread()
                break
            assert response.status_code == 409  # the first try still runs
        await asyncio.sleep(0.1)
    assert waited_s < (time.monotonic() - left) / 4  # half, had the first try gone on
    assert income() == PRICE


async def test_an_opening_of_the_assistant_is_continued(http, url, paid):
    counting = [
        {"role": "user", "content": "Count from one to ten, in digits."},
        {"role": "assistant", "content": "1, 2, 3, 4,"},
    ]
    order = {**ORDER, "messages": counting, "stream": True}
    answer = text((await http.post(url, json=order, headers=paid)).text)
    assert answer.lstrip().startswith("5, 6")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"max_tokens": 1025}, 400),
        ({"messages": []}, 400),
        ({"model": "gpt-5"}, 404),
        ({"messages": [{"role": "user", "content": "x" * MAX_BODY_BYTES}]}, 413),
    ],
)
async def test_what_cannot_be_served_is_refused_before_it_is_paid(http, url, change, status):
    answer = await http.post(url, json={**ORDER, **change})
    assert (answer.status_code, answer.json()["error"]["type"]) == (
        status,
        "invalid_request_error",
    )


@pytest.mark.parametrize("header", ["garbage", "e30=", "x" * 20_000])
async def test_a_header_that_is_no_payment_is_refused(http, url, header):
    answer = await http.post(url, json=ORDER, headers={"PAYMENT-SIGNATURE": header})
    assert answer.status_code == 400


async def test_it_lists_its_models_and_prices(devnet, http):
    models = (await http.get(f"{devnet.upstream_url}/models")).json()["data"]
    prices = (await http.get(devnet.upstream_url.replace("/v1", "/pricing"))).json()["models"]
    assert [model["id"] for model in models] == [ALIAS, "smollm2-135m-instruct"]
    assert {model["flatPrice"] for model in prices} == {0.001}
