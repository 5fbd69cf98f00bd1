"""Callers who leave: free before the first token; after it the answer is finished and charged."""

import asyncio
import http.client
import json
import threading
import time
from contextlib import aclosing
from urllib.parse import urlsplit

import httpx
import pytest

from tinybrain.api.admission import Credentials
from tinybrain.api.choices import Part
from tinybrain.api.openai import parse_request
from tinybrain.payments.wire import read_payment

pytestmark = pytest.mark.chain
LOCAL = {"model": "tinychat", "messages": [{"role": "user", "content": "Hello"}], "stream": True}


def connect(service, headers, path="/v1/chat/completions", body=LOCAL):
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=10)
    connection.request("POST", path, json.dumps(body), headers)
    return connection


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
def test_who_leaves_before_the_first_token_owes_nothing(open_service, caller, scripted, path):
    may_speak, never = threading.Event(), threading.Event()
    with open_service(scripted(may_speak, "word ", never)) as service:
        connection = connect(service, caller.headers(service), path)
        service.wait_until(service.local.started.is_set)
        connection.close()
        service.wait_until(lambda: service.connections == 0)
        may_speak.set()
        service.wait_until(service.local.closed.is_set)
        service.wait_until(lambda: service.outcome() == ("aborted", "released"))
        assert service.drain() == 0
    assert caller.balance() == 1_000_000


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
def test_who_leaves_after_the_first_token_has_bought_it_and_can_fetch_the_rest(
    open_service, caller, scripted, path
):
    go_on = threading.Event()
    with open_service(scripted("first ", go_on, "last")) as service:
        headers = caller.headers(service)
        connection = connect(service, headers, path)
        response = connection.getresponse()
        while b"first" not in response.readline():
            pass
        response.close()
        connection.close()
        go_on.set()
        service.wait_until(lambda: service.outcome() == ("completed", "settled"))
        content = json.dumps(LOCAL)  # the same request, to the byte
        again = httpx.post(service.url + path, content=content, headers=headers, timeout=30)
        assert "first last" in again.text
        assert len(service.rows("answers")) == 1
    assert caller.balance() == 990_000


def test_a_caller_who_leaves_frees_the_engine_in_the_end(service, caller, tinychat):
    body = LOCAL | {"max_tokens": 64, "temperature": 2, "top_k": 0}
    url, headers = f"{service.url}/v1/chat/completions", caller.headers(service)
    with httpx.stream("POST", url, json=body, headers=headers, timeout=30) as response:
        next(response.iter_bytes())
    service.wait_until(lambda: service.outcome()[0] != "running")
    service.wait_until(lambda: tinychat.engine.requests == 0)
    service.wait_until(lambda: not service.drain() and not service.unfinished())


def test_a_whole_answer_given_up_while_it_is_made_is_not_charged(open_service, caller, scripted):
    with open_service(scripted("word ", "word ", threading.Event())) as service:
        payment = caller.headers(service)["PAYMENT-SIGNATURE"]
        service.run(give_up(service, payment))
        service.wait_until(lambda: service.outcome() == ("aborted", "released"))


def test_an_answer_given_up_after_it_was_bought_is_finished_and_charged(open_service, caller):
    """Else one authorization, asked with and dropped again and again, drains the treasury."""
    with open_service() as service:
        body = LOCAL | {"model": service.settings.upstream_model, "stream": False}
        payment = caller.headers(service)["PAYMENT-SIGNATURE"]
        service.run(drop_once_bought(service, body, payment))
        service.wait_until(lambda: service.outcome() == ("completed", "settled"))


def test_who_reads_slower_than_an_answer_may_take_still_gets_all_of_it(
    open_service, caller, scripted
):
    with open_service(
        scripted(*["word "] * 5), answer_timeout_s=5, payment_timeout_s=60
    ) as service:
        payment = caller.headers(service)["PAYMENT-SIGNATURE"]
        assert service.run(read_slowly(service, payment)) == 5
        service.wait_until(lambda: service.outcome() == ("completed", "settled"))


async def admitted(service, body, payment):
    request = parse_request(json.dumps(body).encode(), service.settings)
    credentials = Credentials(read_payment({"PAYMENT-SIGNATURE": [payment], "X-PAYMENT": []}.get))
    return request, await service.gateway.admit(
        credentials,
        request,
        service.gateway.prices.product("/v1/chat/completions", request.model),
        request_hash="0",
        started=time.perf_counter(),
    )


async def drop_once_bought(service, body, payment):
    asking = asyncio.create_task(read_all(service, *await admitted(service, body, payment)))
    while not service.rows("purchases"):  # noqa: ASYNC110  # another connection writes it
        await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def read_all(service, request, admission):
    async with aclosing(service.gateway.answer(request, admission)) as events:
        async for _ in events:
            pass


async def read_slowly(service, payment):
    words = 0
    async with aclosing(service.gateway.answer(*await admitted(service, LOCAL, payment))) as events:
        async for event in events:
            if isinstance(event, Part) and event.is_text:
                words += 1
                await asyncio.sleep(1.3)  # the last word is read after the limit
    return words


async def give_up(service, payment):
    """What a server does that cancels the handler when its caller leaves."""
    request, admission = await admitted(service, LOCAL | {"stream": False}, payment)
    words = 0
    async with aclosing(service.gateway.answer(request, admission)) as events:
        async for event in events:
            words += isinstance(event, Part) and event.is_text
            if words > 1:
                return
