"""Callers under load: each has a wallet, and notes what it signed and what it got for that.

They are honest and stubborn: an answer that was lost is asked for again with the same payment
until it is there, is refused for good, or the caller's time is over. Some leave.
"""

import asyncio
import json
import secrets
import time
from dataclasses import dataclass, field

import httpx
from x402 import x402ClientSync
from x402.http.utils import decode_payment_required_header, encode_payment_signature_header
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner

from tests.chaos.world import API_KEY
from tinybrain.devnet.wallets import private_key
from tinybrain.payments.eip3009 import Authorization, Domain, sign

CHAT, UPFRONT, ORIGINAL = "/v1/chat/completions", "/chat/completions", "/api/chat"
LOCAL = ("tinychat", "Hello, who are you?")
BOUGHT = ("tinybrain", "think hard: why is the sky blue?")
PRICE = 10_000
DEPOSIT, DEPOSIT_ATOMIC = "0.10", 100_000
PATIENCE_S = 14  # a round of faults is short
PAUSE_S = 0.4
TRY_LATER = {404, 429, 500, 502, 503, 504}  # 404: Serve's proxy, of an application without replicas


@dataclass
class Reply:
    """What came back of one attempt; `status` is 0 if nothing did."""

    status: int = 0
    answer_id: str | None = None
    text: str = ""
    whole: bool = False  # up to its receipt


@dataclass
class Question:
    """One request and what pays for it, and every whole answer that it got, by its receipt."""

    path: str
    body: bytes
    headers: dict
    key: str | None  # the payment's nonce, or the idempotency key on a tab
    price: int = PRICE
    answers: dict = field(default_factory=dict)  # texts by answer
    last: Reply = field(default_factory=Reply)


class Caller:
    """One wallet, and all that it asks."""

    def __init__(self, http, world, wallet, behaviour, rng, *, patience_s=PATIENCE_S):
        self.address = wallet.address.lower()
        self.questions = []
        self.tab_token = None
        self.behaviour = behaviour
        self.rng = rng
        self._patience_s = patience_s
        self._http = http
        self._url = world.url
        self._wallet = wallet
        self._settings = world.settings
        self._payer = x402ClientSync()
        register_exact_evm_client(self._payer, EthAccountSigner(wallet))
        self._deadline = 0.0

    async def run(self):
        """Do what this kind of caller does."""
        self._deadline = time.monotonic() + self._patience_s
        await asyncio.sleep(self.rng.uniform(0, 2))
        await self.behaviour(self)

    # --- questions

    async def paid_question(self, path=CHAT, **changes):
        """A question with a signed payment; None if the price could not be learned in time."""
        body = self.body(path, **changes)
        challenge = await self.until(lambda: self._post(path, body), {402})
        if challenge is None:
            return None
        question = Question(path, body, *self._pay(challenge))
        self.questions.append(question)
        return question

    def keyed_question(self, token, path=CHAT, **changes):
        """A question that a tab pays for."""
        key = secrets.token_hex(8)
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
        question = Question(path, self.body(path, **changes), headers, key)
        self.questions.append(question)
        return question

    def body(self, path, *, stream=True, max_tokens=16):
        """A question: small talk, or one that is bought from the larger model."""
        model, text = LOCAL if path == ORIGINAL else self.rng.choice([LOCAL, LOCAL, BOUGHT])
        document = {"messages": [{"role": "user", "content": text}]}
        if path != ORIGINAL:
            document["max_tokens"] = max_tokens
        if path == CHAT:
            document |= {"model": model, "stream": stream}
        return json.dumps(document).encode()

    async def ask(self, question):
        """Send a question until it is answered, refused for good, or time is over."""
        while (left_s := self._deadline - time.monotonic()) > 0:
            reply = await self.send(question, leave_after_s=left_s)
            if reply.whole or reply.status not in TRY_LATER | {0, 200}:
                break
            await asyncio.sleep(PAUSE_S)

    async def send(self, question, *, leave_after_s=None):
        """Send it once; a caller who leaves hangs up after so many seconds."""
        try:
            async with asyncio.timeout(leave_after_s):
                await self._send(question)
        except TimeoutError:
            pass
        return question.last

    async def _send(self, question):
        reply = question.last = Reply()
        try:
            async with self._http.stream(
                "POST", self._url + question.path, content=question.body, headers=question.headers
            ) as response:
                reply.status = response.status_code
                reply.answer_id = response.headers.get("X-TinyBrain-Receipt")
                if response.headers.get("Content-Type", "").startswith("text/event-stream"):
                    async for line in response.aiter_lines():
                        _note_event(reply, line)
                else:
                    _note_whole(reply, await response.aread())
        except httpx.TransportError:
            reply.status = 0
        finally:
            if reply.whole:
                question.answers.setdefault(reply.answer_id, set()).add(reply.text)

    # --- tabs

    async def open_bar_tab(self):
        """A tab on a signed deposit; its token, or None."""
        authorization, signature = self._sign(DEPOSIT_ATOMIC, lasts_s=3600)
        deposit = {"authorization": authorization, "signature": signature}
        body = {"walletAddress": self._wallet.address, "depositAuth": deposit}
        opened = await self.until(lambda: self._post("/api/session/open", json.dumps(body)), {200})
        self.tab_token = opened.json()["sessionToken"] if opened else None
        return self.tab_token

    async def close_bar_tab(self, *, exactly=None):
        """Close it: from its deposit, or with a payment of exactly what was used."""
        body = {"sessionToken": self.tab_token}
        if exactly:
            authorization, signature = self._sign(exactly, lasts_s=3600)
            body["settlementAuth"] = {"authorization": authorization, "signature": signature}
        await self.until(lambda: self._post("/api/session/close", json.dumps(body)), {200})

    async def open_prepaid_tab(self):
        """A tab that is paid upfront; its id, or None."""
        body = json.dumps({"deposit": DEPOSIT}).encode()
        challenge = await self.until(lambda: self._post("/v1/tabs", body), {402})
        if challenge is None:
            return None
        payment, nonce = self._pay(challenge)
        headers = payment | {"Idempotency-Key": nonce}
        opened = await self.until(lambda: self._post("/v1/tabs", body, headers), {201, 202})
        if opened is None:
            return None
        self.tab_token = opened.json()["token"]
        return opened.json()["id"]

    async def close_prepaid_tab(self, tab_id):
        """Close it, and have the rest refunded."""
        headers = {"Authorization": f"Bearer {self.tab_token}"}
        await self.until(
            lambda: self._request("DELETE", f"/v1/tabs/{tab_id}", None, headers), {200}
        )

    # --- the wire

    async def until(self, request, statuses):
        """Repeat a request until it gets one of the statuses; None if it does not in time."""
        while True:
            response = await request()
            if response is not None and response.status_code in statuses:
                return response
            if time.monotonic() > self._deadline:
                return None
            await asyncio.sleep(PAUSE_S)

    async def _request(self, method, path, body, headers=None):
        try:
            return await self._http.request(method, self._url + path, content=body, headers=headers)
        except httpx.TransportError:
            return None

    async def _post(self, path, body, headers=None):
        return await self._request("POST", path, body, headers)

    def _pay(self, challenge):
        required = decode_payment_required_header(challenge.headers["PAYMENT-REQUIRED"])
        payload = self._payer.create_payment_payload(required)
        header = {"PAYMENT-SIGNATURE": encode_payment_signature_header(payload)}
        return header, payload.payload["authorization"]["nonce"].lower()

    def _sign(self, amount, *, lasts_s):
        now = int(time.time())
        authorization = Authorization.model_validate(
            {
                "from": self._wallet.address,
                "to": self._settings.pay_to,
                "value": amount,
                "validAfter": now - 600,
                "validBefore": now + lasts_s,
                "nonce": "0x" + secrets.token_hex(32),
            }
        )
        domain = Domain.of(self._settings.network, self._settings.token)
        return authorization.to_wire(), sign(authorization, private_key(self._wallet), domain)


def _note_event(reply, line):
    data = line.removeprefix("data: ")
    if not line.startswith("data: ") or data == "[DONE]":
        return
    event = json.loads(data)
    choice = (event.get("choices") or [{}])[0]
    reply.text += (
        choice.get("delta", {}).get("content") or event.get("token") or event.get("content") or ""
    )
    reply.whole |= "receipt" in event.get("x_tinybrain", {})


def _note_whole(reply, content):
    try:
        body = json.loads(content)
    except json.JSONDecodeError:  # Serve's own words about a replica that died
        return
    reply.whole = "receipt" in body.get("x_tinybrain", {})
    if reply.whole:
        reply.text = body["choices"][0]["message"]["content"]


# --- kinds of callers


async def streams(caller):
    """Reads two streams."""
    for _ in range(2):
        if question := await caller.paid_question():
            await caller.ask(question)


async def wants_whole(caller):
    """Reads two answers that are sent whole."""
    for _ in range(2):
        if question := await caller.paid_question(stream=False):
            await caller.ask(question)


async def pays_upfront(caller):
    """Pays two answers before they are made."""
    for _ in range(2):
        if question := await caller.paid_question(UPFRONT):
            await caller.ask(question)


async def loses_answers(caller):
    """Loses the connection at some moment, and asks again with the same payment."""
    path = caller.rng.choice([CHAT, UPFRONT])
    for _ in range(2):
        if question := await caller.paid_question(path, stream=caller.rng.random() < 0.5):
            await caller.send(question, leave_after_s=caller.rng.uniform(0.01, 0.8))
            await caller.ask(question)


async def leaves(caller):
    """Leaves before the end, for good."""
    for _ in range(3):
        path = caller.rng.choice([CHAT, CHAT, UPFRONT, ORIGINAL])
        if question := await caller.paid_question(path, max_tokens=64):
            await caller.send(question, leave_after_s=caller.rng.uniform(0.05, 1.5))


async def keeps_bar_tab(caller):
    """Opens a bar tab, asks from it, and closes it; or leaves that to the service."""
    if not (token := await caller.open_bar_tab()):
        return
    for path in (ORIGINAL, CHAT, CHAT):
        await caller.ask(caller.keyed_question(token, path))
    answered = [question for question in caller.questions if question.answers]
    way = caller.rng.choice(["from the deposit", "exactly", "never"])
    if way == "from the deposit":
        await caller.close_bar_tab()
    elif way == "exactly" and len(answered) == len(caller.questions):
        await caller.close_bar_tab(exactly=sum(question.price for question in answered))


async def keeps_prepaid_tab(caller):
    """Opens a prepaid tab, asks from it, and closes it; or leaves that to the service."""
    if not (tab_id := await caller.open_prepaid_tab()):
        return
    for stream in (True, False, True):
        await caller.ask(caller.keyed_question(caller.tab_token, stream=stream))
    if caller.rng.random() < 0.6:
        await caller.close_prepaid_tab(tab_id)


async def has_api_key(caller):
    """Asks for free."""
    for stream in (True, False):
        question = Question(
            CHAT, caller.body(CHAT, stream=stream), {"X-API-Key": API_KEY}, None, price=0
        )
        caller.questions.append(question)
        await caller.ask(question)


BEHAVIOURS = (
    *[streams] * 4,
    *[wants_whole] * 3,
    *[pays_upfront] * 3,
    *[loses_answers] * 4,
    *[leaves] * 2,
    *[keeps_bar_tab] * 2,
    keeps_prepaid_tab,
    has_api_key,
)
"""Twenty callers."""
