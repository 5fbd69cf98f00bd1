"""Answers that TinyChat began and the larger model continued, as callers and the books see them."""

import http.server
import json
import threading
from contextlib import suppress

import httpx
import pytest
from openai.types.chat import ChatCompletion

from tinybrain.chat import Token, TokenLogprob

pytestmark = pytest.mark.chain
CHAT = "/v1/chat/completions"
ASK = {"messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 40}
SURE = "The sky over us is blue and wide today."
PARIS = {
    "messages": [{"role": "user", "content": "What is the capital of France known for?"}],
    "max_tokens": 40,
    "temperature": 0,
}
LOGPROB = TokenLogprob(b" wide", -0.01)


def draft(sure=SURE):
    """Sure words, then eight doubtful ones."""
    first, *others = sure.split()
    doubtful = [Token(f" hm{n}", -3.0, 3.0, 0.1) for n in range(8)]
    return [first, *(f" {word}" for word in others), *doubtful]


WHOLE_DRAFT = SURE + "".join(f" hm{n}" for n in range(8))


class Seller(http.server.BaseHTTPRequestHandler):
    """Says the pieces of its server's script, waits for its events, and stops where it ends."""

    def do_POST(self):
        self.server.asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for step in self.server.script:
            if isinstance(step, threading.Event):
                self.server.waiting.set()
                step.wait(15)
            else:
                with suppress(ConnectionError):  # who asked may have left
                    self.wfile.write(f"data: {step}\n\n".encode())

    def log_message(self, *_):
        pass


def said(text):
    return json.dumps({"choices": [{"delta": {"content": text}}]})


END = [
    json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]}),
    json.dumps({"choices": [], "usage": {"prompt_tokens": 90, "completion_tokens": 3}}),
    "[DONE]",
]


@pytest.fixture
def seller():
    """Opens an upstream that is not paid and says what its `script` has; gives its settings."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Seller) as server:
        server.daemon_threads = True
        server.waiting = threading.Event()
        server.settings = {
            "upstream_url": f"http://127.0.0.1:{server.server_port}/v1",
            "upstream_api_key": "key",
        }
        threading.Thread(target=server.serve_forever).start()
        yield server
        server.shutdown()


def text(chunks):
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(delta.get("content", "") for delta in deltas)


def extras(chunks):
    return [chunk["x_tinybrain"] for chunk in chunks if "x_tinybrain" in chunk]


# --- bought over x402


def test_both_models_are_told_and_the_continuation_is_a_cost(
    open_service, scripted, caller, devnet, usdc
):
    before = usdc(devnet.wallets.provider.address)
    begun = "The capital of France is Paris. It is known for"
    with open_service(scripted(*draft(begun))) as service:
        answer = caller.ask(service, PARIS).json()
        told = answer["x_tinybrain"]
        kept = httpx.get(f"{service.url}/v1/receipts/{told['receipt']}").json()
        statistics = service.run(service.gateway.receipts.statistics(since_ms=0))
    ChatCompletion.model_validate(answer, strict=True)
    assert answer["model"] == "tinybrain"
    assert answer["choices"][0]["message"]["content"].startswith(begun + " ")
    assert answer["choices"][0]["message"]["content"].count("Paris") == 1
    assert (told["answered_by"], told["model"]) == ("mixed", "mixed")
    assert (told["escalation_reason"], told["fallback"]) == ("later_doubt", False)
    assert told["confidence"] < 0.5
    (course,) = told["choices"]
    assert (course["model"], course["continued_by"]) == ("tinychat", "blockrun")
    assert (told["cost_atomic"], told["profit_atomic"]) == (1_000, 9_000)
    assert (kept["answered_by"], kept["reason"], kept["cost"]) == ("mixed", "later_doubt", 1_000)
    assert [bought["transaction"] for bought in kept["purchases"]] == [told["cost_transaction"]]
    assert statistics["escalations"] == {"later_doubt": 1}
    assert usdc(devnet.wallets.provider.address) == before + 1_000
    assert caller.balance() == 990_000


def test_a_cap_that_leaves_no_room_lets_tinychat_go_on(open_service, scripted, caller):
    with open_service(scripted(*draft()), max_cost_per_call="0.0001") as service:
        answer = caller.ask(service, ASK).json()
    told = answer["x_tinybrain"]
    assert answer["choices"][0]["message"]["content"] == WHOLE_DRAFT
    assert (told["answered_by"], told["model"]) == ("tinychat", "tinychat")
    assert (told["escalation_reason"], told["fallback"]) == ("later_doubt", True)
    assert (told["cost_atomic"], answer["model"]) == (0, "tinychat")


# --- what is sent


def test_a_stream_tells_who_goes_on_where_it_does(open_service, scripted, caller, seller):
    seller.script = [said("blue and wide today."), said(" It is"), said(" day."), *END]
    usage = {"stream_options": {"include_usage": True}}
    with open_service(scripted(*draft()), **seller.settings) as service:
        *chunks, done = caller.stream(service, ASK | usage)
    assert done == "[DONE]"
    assert text(chunks) == SURE + " It is day."
    first, goes_on, receipt = extras(chunks)
    assert (first["answered_by"], first["escalation_reason"]) == ("tinychat", "none")
    assert (goes_on["answered_by"], goes_on["escalation_reason"]) == ("upstream", "later_doubt")
    assert (receipt["answered_by"], receipt["escalation_reason"]) == ("mixed", "later_doubt")
    models = [chunk["model"] for chunk in chunks if chunk["choices"] and text([chunk])]
    assert models == ["tinychat", "tinychat", "127.0.0.1", "127.0.0.1"]
    assert (chunks[-1]["model"], chunks[-1]["usage"]) == (
        "tinybrain",
        {"prompt_tokens": 5, "completion_tokens": 9 + 3, "total_tokens": 17},
    )
    assert seller.asked["max_tokens"] == 40 - 9
    assert seller.asked["messages"][-2] == {"role": "assistant", "content": SURE}


def test_the_original_format_tells_the_model_of_each_piece(open_service, scripted, caller, seller):
    seller.script = [said("Indeed."), *END]
    with open_service(scripted(*draft()), **seller.settings) as service:
        events = caller.stream(
            service, ASK, path="/api/chat", headers=caller.headers(service, path="/api/chat")
        )
    told = [(event["model"], event["escalationReason"]) for event in events[:-1]]
    assert set(told) == {("tinychat", "none"), ("127.0.0.1", "later_doubt")}
    assert "".join(event["content"] for event in events[:-1]) == SURE + " Indeed."


def test_the_same_request_again_is_told_the_same(open_service, scripted, caller, seller):
    seller.script = [said("Indeed."), *END]
    with open_service(scripted(*draft()), **seller.settings) as service:
        headers = caller.headers(service)
        first, again = [caller.stream(service, ASK, headers=headers)[:-1] for _ in range(2)]
    assert text(first) == text(again) == SURE + " Indeed."
    assert extras(first) == extras(again)
    assert {chunk["model"] for chunk in again} == {"tinychat", "127.0.0.1"}


def test_logprobs_are_of_tinychats_words_alone(open_service, scripted, caller, seller):
    seller.script = [said("Indeed."), *END]
    words = [Token(f" {w}", -0.01, 0.1, 0.9, (LOGPROB,)) for w in SURE.split()]
    with open_service(scripted(*words, *draft()[9:]), **seller.settings) as service:
        answer = caller.ask(service, ASK | {"logprobs": True}).json()
    assert len(answer["choices"][0]["logprobs"]["content"]) == len(words)


def test_one_of_two_choices_may_be_continued(open_service, scripted, caller, seller):
    seller.script = [said("Indeed."), *END]
    two = ASK | {"n": 2}
    with open_service(scripted(*draft()), **seller.settings) as service:
        service.local.generate = turns(scripted(*draft()), scripted("Well."))
        answer = caller.ask(service, two, headers=caller.headers(service, body=two)).json()
    told = answer["x_tinybrain"]
    assert sorted(c["message"]["content"] for c in answer["choices"]) == [
        SURE + " Indeed.",
        "Well.",
    ]
    assert sorted(choice["answered_by"] for choice in told["choices"]) == ["mixed", "tinychat"]
    assert (told["answered_by"], told["escalation_reason"]) == ("mixed", "later_doubt")


def turns(*models):
    left = list(models)
    return lambda messages, sampling: left.pop(0).generate(messages, sampling)


@pytest.mark.parametrize(
    ("path", "body", "settings"),
    [
        (CHAT, {"model": "tinychat"}, {}),
        ("/chat/completions", {}, {}),
        (CHAT, {}, {"continue_on_doubt": False}),
    ],
    ids=["by name", "native format", "switched off"],
)
def test_who_asks_tinychat_alone_gets_its_own_words(
    open_service, scripted, caller, seller, path, body, settings
):
    seller.asked = None
    with open_service(scripted(*draft()), **seller.settings, **settings) as service:
        headers = caller.headers(service, path=path, body=ASK | body)
        answer = caller.ask(service, ASK | body | {"stream": True}, path=path, headers=headers)
    assert "hm7" in answer.text
    assert '"answered_by":"tinychat"' in answer.text
    assert seller.asked is None


# --- failures and who leaves


def test_a_larger_model_that_is_away_leaves_the_answer_to_tinychat(open_service, scripted, caller):
    away = {"upstream_url": "http://127.0.0.1:1/v1", "upstream_api_key": "key"}
    with open_service(scripted(*draft()), **away) as service:
        *chunks, done = caller.stream(service, ASK)
    assert (text(chunks), done) == (WHOLE_DRAFT, "[DONE]")
    assert [(told["answered_by"], told["escalation_reason"]) for told in extras(chunks)] == [
        ("tinychat", "none"),
        ("tinychat", "later_doubt"),
        ("tinychat", "later_doubt"),
    ]
    assert caller.balance() == 990_000


@pytest.mark.parametrize("stream", [True, False])
def test_one_that_breaks_off_after_its_first_word_ends_the_answer_uncharged(
    open_service, scripted, caller, seller, stream
):
    seller.script = [said("Indeed"), said(" so")]
    with open_service(scripted(*draft()), **seller.settings) as service:
        answer = caller.ask(service, ASK | {"stream": stream})
        assert (answer.status_code, "Indeed" in answer.text) == (200 if stream else 502, stream)
        assert "upstream_truncated" in answer.text
        assert service.outcome() == ("failed", "released")
    assert caller.balance() == 1_000_000


def test_what_is_known_is_shown_while_a_slow_one_is_waited_for(
    open_service, scripted, caller, seller
):
    go_on = threading.Event()
    seller.script = [go_on, said("Indeed."), *END]
    with open_service(scripted(*draft()), **seller.settings) as service:
        seen = ""
        asked, headers = ASK | {"stream": True}, caller.headers(service)
        with httpx.stream(
            "POST", service.url + CHAT, json=asked, headers=headers, timeout=30
        ) as response:
            for line in response.iter_lines():
                seen += line
                if "today." in line:
                    assert seller.waiting.wait(15)
                    assert not service.local.closed.is_set()
                    go_on.set()
        assert "Indeed." in seen
        service.wait_until(lambda: service.outcome() == ("completed", "settled"))


def leave_while_it_waits(service, seller, headers):
    asked = ASK | {"stream": True}
    with httpx.stream(
        "POST", service.url + CHAT, json=asked, headers=headers, timeout=30
    ) as response:
        lines = response.iter_lines()  # named: httpx disconnects when it is dropped
        assert any("today." in line for line in lines)
        assert seller.waiting.wait(15)


def test_who_pays_and_leaves_while_it_is_asked_finds_the_answer_finished(
    open_service, scripted, caller, seller
):
    go_on = threading.Event()
    seller.script = [go_on, said("Indeed."), *END]
    with open_service(scripted(*draft()), **seller.settings) as service:
        headers = caller.headers(service)
        leave_while_it_waits(service, seller, headers)
        go_on.set()
        service.wait_until(lambda: service.outcome() == ("completed", "settled"))
        assert service.local.closed.is_set()
        again = caller.stream(service, ASK, headers=headers)
        assert text(again[:-1]) == SURE + " Indeed."
    assert caller.balance() == 990_000


def test_who_does_not_pay_and_leaves_ends_both_models(open_service, scripted, seller):
    go_on = threading.Event()
    seller.script = [go_on, said("Indeed."), *END]
    with open_service(scripted(*draft()), **seller.settings) as service:
        key = service.settings.api_key.get_secret_value()
        leave_while_it_waits(service, seller, {"X-API-Key": key})
        service.wait_until(service.local.closed.is_set)
        service.wait_until(lambda: service.rows("answers")[0]["outcome"] == "aborted")
        assert service.rows("answers")[0]["answered_by"] == "tinychat"
        go_on.set()
