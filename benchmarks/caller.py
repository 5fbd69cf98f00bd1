"""A caller who asks in one of three ways and times it: directly, with an API key, over x402."""

import asyncio
import json
import time
from dataclasses import dataclass, replace

import httpx
from eth_account.signers.local import LocalAccount
from latency import Sample
from mock_model import ANSWER, MODEL
from x402 import x402Client
from x402.http.clients.httpx import x402AsyncTransport
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner

TIMEOUT_S = 60
RECEIPT_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Way:
    """A way to an answer: `url` is the API's base; `payer` pays over x402."""

    name: str
    url: str
    stream: bool
    api_key: str | None = None
    payer: LocalAccount | None = None


class Caller:
    """Asks one question again and again over one kept-alive connection."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._clock = _Clock()
        self._http = httpx.AsyncClient(transport=self._transport(), timeout=TIMEOUT_S)
        self._headers = {"X-API-Key": way.api_key} if way.api_key else {}
        self._body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Which words do you know?"}],
            "stream": way.stream,
        }

    async def ask(self, number: int) -> Sample:
        """Ask once, in round `number`; returns when the payment is settled.

        Raises:
            httpx.HTTPStatusError: The question was refused.
            RuntimeError: The answer is not the model's.
        """
        self._clock.reset()
        request = self._http.stream(
            "POST",
            f"{self._way.url}/v1/chat/completions",
            json=self._body,
            headers=self._headers,
        )
        async with request as response:
            response.raise_for_status()
            lines = [(time.perf_counter(), line) async for line in response.aiter_lines()]
        ended = time.perf_counter()
        first = first_token_at(lines, stream=self._way.stream)
        sample = self._clock.sample(number, first if self._way.stream else None, ended)
        if self._way.payer is None or not self._way.stream:
            return sample  # what is sent whole over x402 is settled before
        await self._wait_until_settled(response.headers["X-TinyBrain-Receipt"])
        return replace(sample, settled=(time.perf_counter() - ended) * 1000)

    async def aclose(self) -> None:
        await self._http.aclose()

    def _transport(self) -> httpx.AsyncBaseTransport:
        if self._way.payer is None:
            return self._clock
        client = x402Client()
        register_exact_evm_client(client, EthAccountSigner(self._way.payer))
        return x402AsyncTransport(client, self._clock)

    async def _wait_until_settled(self, receipt: str) -> None:
        # Nothing of one answer may run on while the next is timed.
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                answer = await self._http.get(f"{self._way.url}/v1/receipts/{receipt}")
                if answer.json()["payment"]["state"] == "settled":
                    return
                await asyncio.sleep(RECEIPT_POLL_S)


class _Clock(httpx.AsyncBaseTransport):
    """Notes when each HTTP request is sent and when the head of its response is there."""

    def __init__(self) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self._sent: list[float] = []
        self._answered: list[float] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._sent.append(time.perf_counter())
        response = await self._inner.handle_async_request(request)
        self._answered.append(time.perf_counter())
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()

    def reset(self) -> None:
        self._sent.clear()
        self._answered.clear()

    def sample(self, number: int, first_token: float | None, ended: float) -> Sample:
        start = self._sent[-1]
        paid = len(self._sent) > 1
        return Sample(
            number,
            total=(ended - start) * 1000,
            first_token=None if first_token is None else (first_token - start) * 1000,
            challenge=(self._answered[0] - self._sent[0]) * 1000 if paid else None,
            signing=(start - self._answered[0]) * 1000 if paid else None,
        )


def first_token_at(lines: list[tuple[float, str]], *, stream: bool) -> float:
    """When the first words came; they are read after the end, to cost the measurement nothing."""
    words = [(at, _words(line, stream=stream)) for at, line in lines]
    if "".join(text for _, text in words) != ANSWER:
        raise RuntimeError(f"This is not the answer: {lines!r:.500}")
    return next(at for at, text in words if text)


def _words(line: str, *, stream: bool) -> str:
    data = line.removeprefix("data: ")
    if not data or data == "[DONE]":
        return ""
    kind = "delta" if stream else "message"
    choices = json.loads(data).get("choices", ())
    return "".join(choice[kind].get("content") or "" for choice in choices)
