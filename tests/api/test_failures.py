"""What breaks is said, recorded and not charged; what can stand in does."""

import http.server
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tinybrain.errors import LocalModelError

pytestmark = pytest.mark.chain
HELLO = {"messages": [{"role": "user", "content": "Hello, who are you?"}]}
THINK = {"messages": [{"role": "user", "content": "think hard: why?"}], "max_tokens": 8}
UPSTREAM = THINK | {"model": "deepseek/deepseek-reasoner"}
NOBODY = "http://127.0.0.1:1/api/v1"
BROKEN = LocalModelError("It broke.")


class _CutsOff(http.server.BaseHTTPRequestHandler):
    """Begins an answer, and breaks the connection in the middle of it."""

    def do_POST(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'data: {"choices": [{"delta": {"content": "Light"}}]}\n\n')

    def log_message(self, *_):
        pass


@pytest.fixture
def cut_upstream():
    """Settings of an upstream that is not paid and whose answers break off."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _CutsOff) as server:
        threading.Thread(target=server.serve_forever).start()
        yield {
            "upstream_url": f"http://127.0.0.1:{server.server_port}/v1",
            "upstream_api_key": "key",
        }
        server.shutdown()


@pytest.fixture
def not_charged(caller):
    """Checks that the last answer failed, and that its payment was given back."""

    def check(service):
        assert service.outcome() == ("failed", "released")
        assert service.unfinished() == []
        assert caller.balance() == 1_000_000

    return check


def code(answer):
    return answer.status_code, answer.json()["error"]["code"]


def test_tinychat_stands_in_for_an_upstream_that_is_away(open_service, caller):
    with open_service(upstream_url=NOBODY) as service:
        told = caller.ask(service, THINK).json()["x_tinybrain"]
    assert (told["answered_by"], told["fallback"]) == ("tinychat", True)
    assert told["payment"]["state"] == "settled"
    assert caller.balance() == 990_000


def test_an_upstream_asked_for_by_name_has_no_stand_in(open_service, caller, not_charged):
    with open_service(upstream_url=NOBODY) as service:
        answer = caller.ask(service, UPSTREAM)
        assert code(answer) == (502, "upstream_unavailable")
        assert answer.headers["retry-after"] == "1"
        not_charged(service)


def test_a_stream_whose_upstream_breaks_off_ends_with_an_error(
    open_service, caller, not_charged, cut_upstream
):
    with open_service(**cut_upstream) as service:
        *_, delta, error = caller.stream(service, THINK)
        assert delta["choices"][0]["delta"]["content"] == "Light"
        assert error["error"]["code"] == "upstream_unavailable"
        not_charged(service)


def test_a_whole_answer_that_breaks_off_is_not_sent(
    open_service, caller, not_charged, cut_upstream
):
    with open_service(**cut_upstream) as service:
        answer = caller.ask(service, THINK)
        assert code(answer) == (502, "upstream_unavailable")
        assert "Light" not in answer.text
        not_charged(service)


def test_the_upstream_stands_in_for_a_tinychat_that_fails_at_once(open_service, caller, scripted):
    with open_service(scripted(BROKEN)) as service:
        told = caller.ask(service, HELLO | {"max_tokens": 8}).json()["x_tinybrain"]
    assert (told["answered_by"], told["escalation_reason"]) == ("upstream", "failure")
    assert caller.balance() == 990_000


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
def test_a_tinychat_that_fails_in_the_middle_ends_the_stream_with_an_error(
    open_service, caller, scripted, not_charged, path
):
    with open_service(scripted("I ", "am ", BROKEN)) as service:
        events = caller.stream(service, HELLO | {"model": "tinychat"}, path=path)
        assert "I " in str(events)
        assert events[-1]["error"]["code"] == "local_model_failed"
        not_charged(service)


def test_when_both_models_fail_nobody_answers(open_service, caller, scripted, not_charged):
    with open_service(scripted(BROKEN), upstream_url=NOBODY) as service:
        assert code(caller.ask(service, HELLO)) == (502, "upstream_unavailable")
        not_charged(service)


@pytest.mark.parametrize("script", [(), ("I ",)])
def test_an_answer_that_stalls_is_given_up(open_service, caller, scripted, not_charged, script):
    with open_service(scripted(*script, threading.Event()), answer_timeout_s=1) as service:
        answer = caller.ask(service, HELLO | {"model": "tinychat"})
        assert code(answer) == (502, "timeout")
        assert service.local.closed.is_set()
        not_charged(service)


def test_a_stream_that_stalls_ends_with_an_error(open_service, caller, scripted, not_charged):
    with open_service(scripted("I ", threading.Event()), answer_timeout_s=5) as service:
        *_, delta, error = caller.stream(service, HELLO | {"model": "tinychat"})
        assert delta["choices"][0]["delta"] == {"content": "I "}
        assert error["error"]["code"] == "timeout"
        not_charged(service)


def test_a_payment_is_not_refused_because_the_chain_is_away(open_service, caller):
    with open_service(rpc_url="http://127.0.0.1:1") as service:
        answer = caller.ask(service, HELLO)
        assert code(answer) == (503, "payment_service_unavailable")
        assert answer.headers["retry-after"] == "1"
        assert service.rows("payments") == []


def test_of_a_message_longer_than_its_context_tinychat_reads_what_fits(service, caller):
    body = {"model": "tinychat", "messages": [{"role": "user", "content": "word " * 1_600}]}
    answer = caller.ask(service, body)
    assert (answer.status_code, answer.json()["usage"]["prompt_tokens"]) == (200, 256)
    assert caller.balance() == 990_000


def test_a_purchase_over_the_budget_of_the_day_is_not_even_signed(
    open_service, caller, devnet, usdc
):
    before = usdc(devnet.wallets.provider.address)
    with open_service(max_cost_per_day="0.0009") as service:
        told = caller.ask(service, THINK).json()["x_tinybrain"]
        assert (told["answered_by"], told["fallback"]) == ("tinychat", True)
        assert service.rows("purchases") == []
    assert usdc(devnet.wallets.provider.address) == before


class Locked:
    """Holds the ledger's write lock, as a stuck process would."""

    def __init__(self, service):
        self._path = service.settings.ledger.removeprefix("sqlite+aiosqlite:///")

    def __enter__(self):
        self._connection = sqlite3.connect(self._path, isolation_level=None)
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_):
        self._connection.close()


@pytest.fixture
def impatient(monkeypatch):
    """The ledger waits less long for its lock."""
    monkeypatch.setattr("tinybrain.payments.sqlite.BUSY_TIMEOUT_S", 0.1)


@pytest.mark.usefixtures("impatient")
def test_nothing_is_sold_while_the_ledger_cannot_be_written(open_service, caller, scripted):
    with open_service(scripted("Well.")) as service:
        headers = caller.headers(service)
        with Locked(service):
            answer = caller.ask(service, HELLO, headers=headers)
        assert code(answer) == (503, "ledger_unavailable")
        assert answer.headers["retry-after"] == "1"
        assert not service.local.started.is_set()
        assert service.rows("payments") == []
        assert caller.ask(service, HELLO, headers=headers).status_code == 200


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_cannot_be_recorded_has_no_end_and_is_released_later(
    open_service, caller, scripted, not_charged, stream
):
    locked = threading.Event()
    body = HELLO | {"model": "tinychat", "stream": stream}
    with open_service(scripted("Well.", locked)) as service, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(caller.ask, service, body)
        service.wait_until(service.local.started.is_set)
        with Locked(service):
            locked.set()
            answer = asked.result()
        assert answer.status_code == (200 if stream else 503)
        assert "ledger_unavailable" in answer.text
        assert "receipt" not in answer.text
        assert "[DONE]" not in answer.text
        service.housekeeping._abandoned_after_s = 0
        service.drain()
        not_charged(service)
