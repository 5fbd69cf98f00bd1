"""Callers who leave: free before the first token, charged after it, and the work ends."""

import http.client
import json
import threading
import time
from contextlib import aclosing
from urllib.parse import urlsplit

import httpx
import pytest

from tinybrain.api.gateway import Credentials
from tinybrain.api.openai import parse_request
from tinybrain.routing.events import Delta

pytestmark = pytest.mark.chain
LOCAL = {"model": "tinychat", "messages": [{"role": "user", "content": "Hello"}], "stream": True}


def connect(service, headers, path="/v1/chat/completions", body=LOCAL):
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=10)
    connection.request("POST", path, json.dumps(body), headers)
    return connection


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
def test_who_leaves_before_the_first_token_owes_nothing(open_service, caller, scripted, path):
    may_speak = threading.Event()
    with open_service(scripted(may_speak, *["word "] * 1000)) as service:
        connection = connect(service, caller.headers(service), path)
        service.wait_until(service.local.started.is_set)
        connection.close()
        may_speak.set()
        service.wait_until(service.local.closed.is_set)
        service.wait_until(lambda: service.outcome() == ("aborted", "released"))
        assert service.drain() == 0
    assert caller.balance() == 1_000_000


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
def test_who_leaves_after_the_first_token_has_bought_it(open_service, caller, scripted, path):
    with open_service(scripted("word ", threading.Event())) as service:
        connection = connect(service, caller.headers(service), path)
        response = connection.getresponse()
        while b"word" not in response.readline():
            pass
        response.close()
        connection.close()
        service.wait_until(service.local.closed.is_set)
        service.wait_until(lambda: service.outcome() == ("aborted", "served"))
        assert service.drain() == 1
        assert service.outcome() == ("aborted", "settled")
    assert caller.balance() == 990_000


def test_a_caller_who_leaves_frees_the_engine(service, caller, tinychat):
    body = LOCAL | {"max_tokens": 4096, "temperature": 2, "top_k": 0}
    with httpx.stream(
        "POST", f"{service.url}/v1/chat/completions", json=body, headers=caller.headers(service)
    ) as response:
        next(response.iter_bytes())
    service.wait_until(lambda: service.outcome()[0] != "running")
    service.wait_until(lambda: tinychat.engine.requests == 0)
    service.drain()
    assert service.unfinished() == []


def test_a_whole_answer_given_up_while_it_is_made_is_not_charged(open_service, caller, scripted):
    with open_service(scripted("word ", "word ", threading.Event())) as service:
        payment = caller.headers(service)["PAYMENT-SIGNATURE"]
        service.run(give_up(service, payment))
        assert service.outcome() == ("aborted", "released")


async def give_up(service, payment):
    """What a server does that cancels the handler when its caller leaves."""
    body = json.dumps(LOCAL | {"stream": False}).encode()
    request = parse_request(body, service.settings)
    admission = await service.gateway.admit(
        Credentials(payment, None), request, request_hash="0", started=time.perf_counter()
    )
    words = 0
    async with aclosing(service.gateway.answer(request, admission)) as events:
        async for event in events:
            words += isinstance(event, Delta)
            if words > 1:
                return
