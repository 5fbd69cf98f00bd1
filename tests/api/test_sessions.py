"""The bar tab in the original's wire format, with the account kept here."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from eth_account import Account

from tinybrain.devnet.token import mint
from tinybrain.payments import chain as chain_module

pytestmark = pytest.mark.chain
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
LOCAL = HELLO | {"model": "tinychat", "max_tokens": 8}
CHAT = "/v1/chat/completions"


def ask(service, token, path=CHAT, body=LOCAL):
    headers = {"X-SESSION-TOKEN": token}
    return httpx.post(service.url + path, json=body, headers=headers, timeout=60)


def close(service, token, settlement=None):
    body = {"sessionToken": token, "settlementAuth": settlement}
    return httpx.post(f"{service.url}/api/session/close", json=body, timeout=30)


def tab_of(service, caller):
    (row,) = service.rows("tabs", f"payer = '{caller.address.lower()}'")
    return row


@pytest.fixture
def session(service, caller):
    """The token of an open bar tab with 25 cents."""
    return caller.open_session(service).json()["sessionToken"]


def test_a_tab_is_opened_on_a_signature_alone(service, caller):
    opened = caller.open_session(service)
    told = opened.json()
    assert opened.status_code == 200
    assert (told["depositCents"], told["maxQueries"], told["priceCents"]) == (25, 25, 1)
    assert time.time() + 3000 < told["expiresAt"] < time.time() + 3600
    assert opened.headers["cache-control"] == "private, no-store"
    assert caller.balance() == 1_000_000
    close(service, told["sessionToken"])


@pytest.mark.parametrize("path", [CHAT, "/chat/completions", "/api/chat"])
def test_every_chat_is_charged_to_it(service, caller, session, path):
    assert ask(service, session, path).status_code == 200
    service.wait_until(lambda: tab_of(service, caller)["held"] == 0)
    assert tab_of(service, caller)["spent"] == 10_000
    close(service, session)


def test_closed_with_a_payment_of_what_was_used_only_that_is_paid(service, caller, session, web3):
    ask(service, session)
    ask(service, session)
    closed = close(service, session, caller.signed(service, 20_000))
    told = closed.json()
    assert (closed.status_code, told["status"], told["spentCents"]) == (200, "settled", 2)
    assert web3.eth.get_transaction_receipt(told["settlementTx"])["status"] == 1
    assert caller.balance() == 980_000
    assert close(service, session).json() == told
    states = service.rows("payments", f"tab_id = '{tab_of(service, caller)['id']}'")
    assert [row["state"] for row in states] == ["released", "settled"]
    assert ask(service, session).status_code == 401


def test_closed_without_one_the_deposit_is_settled_and_the_rest_refunded(
    service, caller, session, web3
):
    ask(service, session)
    told = close(service, session).json()
    assert web3.eth.get_transaction_receipt(told["settlementTx"])["status"] == 1
    service.drain()
    assert tab_of(service, caller)["state"] == "closed"
    assert caller.balance() == 990_000
    assert close(service, session).json() == told


def test_closed_unused_nothing_moves_and_the_deposit_may_be_used_again(service, caller):
    deposit = caller.signed(service, 250_000)
    for _ in range(2):
        session = caller.open_session(service, deposit=deposit).json()["sessionToken"]
        told = close(service, session).json()
        assert (told["settlementTx"], told["status"]) == (None, "closed")
    service.drain()
    assert caller.balance() == 1_000_000


def test_a_close_must_match_what_was_used(service, caller, session):
    ask(service, session)
    for amount in (0, 9_999, 20_000, 250_000):
        refused = close(service, session, caller.signed(service, amount))
        assert refused.status_code == 409
        assert "10000 atomic units" in refused.json()["error"]
    assert tab_of(service, caller)["state"] == "open"
    assert close(service, session).status_code == 200


def test_nobody_else_can_settle_a_tab(service, caller, session):
    ask(service, session)
    other = type(caller)(Account.create(), None)
    assert close(service, session, other.signed(service, 10_000)).status_code in (400, 409)
    forged = caller.signed(service, 10_000, signer=other.wallet)
    assert close(service, session, forged).status_code == 401
    assert close(service, "tab_guess").status_code == 401
    assert tab_of(service, caller)["state"] == "open"
    close(service, session)


def test_a_close_while_an_answer_runs_waits_for_its_end(open_service, caller, scripted):
    go_on = threading.Event()
    with open_service(scripted(go_on, "Well.")) as service, ThreadPoolExecutor(1) as pool:
        session = caller.open_session(service).json()["sessionToken"]
        asked = pool.submit(ask, service, session)
        service.wait_until(service.local.started.is_set)
        assert close(service, session).status_code == 409
        go_on.set()
        assert asked.result().status_code == 200
        assert close(service, session).json()["spentCents"] == 1


def test_while_the_chain_is_slow_a_close_says_so_and_tells_later(
    open_service, caller, scripted, monkeypatch
):
    monkeypatch.setattr("tinybrain.api.tab_office.CLOSE_WAIT_S", 0.2)
    with open_service(scripted("Well.")) as service:
        session = caller.open_session(service).json()["sessionToken"]
        ask(service, session)
        service.may_settle.clear()
        told = close(service, session).json()
        assert (told["settlementTx"], told["status"]) == (None, "settling")
        service.may_settle.set()
        service.drain()
        assert close(service, session).json()["settlementTx"]


# --- opening


def test_of_one_deposit_sent_eight_times_at_once_one_tab_is_opened(service, caller):
    deposit = caller.signed(service, 250_000)
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: caller.open_session(service, deposit=deposit), range(8)))
    (session,) = [answer.json()["sessionToken"] for answer in opened if answer.is_success]
    assert {answer.status_code for answer in opened} <= {200, 409, 429}
    assert tab_of(service, caller)["state"] == "open"
    close(service, session)


def test_a_wallet_has_one_open_tab(service, caller, session):
    assert caller.open_session(service).status_code == 429
    close(service, session)
    again = caller.open_session(service)
    assert again.status_code == 200
    close(service, again.json()["sessionToken"])


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"payTo": "0x" + "d" * 40}, 400, "payment_invalid"),
        ({"signer": Account.create()}, 401, "payment_invalid_signature"),
        ({"wallet": "0x" + "d" * 40}, 400, "invalid_request"),
        ({"amount": 99_999}, 400, "invalid_request"),
        ({"amount": 500_001}, 400, "invalid_request"),
        ({"validBefore": 1_700_000_000}, 400, "payment_expired"),
        ({"validBefore": int(time.time()) + 200}, 400, "payment_expired"),
        ({"validBefore": int(time.time()) + 10**7}, 400, "payment_window_too_long"),
        ({"validAfter": int(time.time()) + 3600}, 400, "payment_not_yet_valid"),
        ({"deposit": {"authorization": {}, "signature": "0x"}}, 400, "invalid_request"),
    ],
)
def test_a_deposit_that_does_not_do_opens_nothing(service, caller, changes, status, code):
    before = len(service.rows("tabs"))
    refused = caller.open_session(service, **{"amount": 250_000, **changes})
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert isinstance(refused.json()["error"], str)
    assert len(service.rows("tabs")) == before


def test_a_wallet_that_does_not_cover_its_deposit_opens_nothing(service, pauper):
    refused = pauper.open_session(service)
    assert (refused.status_code, refused.json()["code"]) == (400, "insufficient_funds")


def test_a_deposit_that_was_settled_opens_no_second_tab(service, caller):
    deposit = caller.signed(service, 250_000)
    session = caller.open_session(service, deposit=deposit).json()["sessionToken"]
    ask(service, session)
    close(service, session)
    assert caller.open_session(service, deposit=deposit).status_code in (400, 409)


def test_who_cannot_refund_opens_no_bar_tab(open_service, caller):
    with open_service(pay_to=caller.address) as service:
        assert caller.open_session(service).status_code == 404


# --- callers who do not close


def test_the_tab_of_a_caller_who_vanished_is_settled_and_the_rest_refunded(
    open_service, caller, scripted
):
    with open_service(scripted("Well.")) as service:
        session = caller.open_session(service).json()["sessionToken"]
        ask(service, session)
        service.drain()
        assert tab_of(service, caller)["state"] == "open"
        service.housekeeping._settings = service.settings.model_copy(update={"bar_tab_idle_s": 0})
        service.drain()  # the deposit
        service.drain()  # the refund
        tab = tab_of(service, caller)
        assert (tab["state"], tab["spent"], tab["refunded"]) == ("closed", 10_000, 240_000)
    assert caller.balance() == 990_000


def test_who_drains_his_wallet_loses_the_tab_and_owes_what_he_used(
    open_service, caller, scripted, token, web3, monkeypatch
):
    with open_service(scripted("Well.")) as service:
        session = caller.open_session(service).json()["sessionToken"]
        for _ in range(2):
            ask(service, session)
        elsewhere = Account.create().address
        caller.transact(token.functions.transfer(elsewhere, 1_000_000), web3)
        service.drain()
        assert ask(service, session).status_code == 401
        monkeypatch.setattr(chain_module, "EXPIRY_MARGIN_S", -7200)  # the deposit has expired
        service.wait_until(
            lambda: not service.drain() and tab_of(service, caller)["state"] == "closed"
        )
        owed = httpx.get(f"{service.url}/v1/debts/{caller.address}").json()
        assert owed["owed"] == "0.02"
        (debt,) = service.rows("payments", "state = 'debt'")
        assert debt["tab_id"] == tab_of(service, caller)["id"]
        mint(web3, token, caller.address, 1_000_000)
        refused = caller.open_session(service)
        assert (refused.status_code, refused.json()["code"]) == (403, "debt_owed")


def test_the_ledger_keeps_no_token(service, session):
    kept = [tuple(row) for table in ("tabs", "replies", "payments") for row in service.rows(table)]
    assert session not in json.dumps(kept)
    close(service, session)
