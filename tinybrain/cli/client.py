"""Asks the service over HTTP, pays, and reads the stream."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from tinybrain.errors import AnswerFailed, TinyBrainError
from tinybrain.payments.payer import paying_client
from tinybrain.upstreams.sse import SseDecoder
from tinybrain.usdc import Usdc

ANSWER_TIMEOUT_S = 180
RECEIPT_TRIES = 50
RECEIPT_PAUSE_S = 0.1
FINAL_STATES = {"settled", "released", "debt"}
Messages = Sequence[Mapping[str, str]]


@dataclass
class Answer:
    """An answer while it arrives: text so far, reasoning so far, and at last its receipt."""

    text: str = ""
    reasoning: str = ""
    receipt: dict[str, Any] = field(default_factory=dict)


class Asker:
    """Pays for answers from one wallet.

    Raises:
        TinyBrainError: The private key is none.
    """

    def __init__(
        self, url: str, private_key: str, *, model: str, max_price: Usdc, max_tokens: int
    ) -> None:
        self._url = url.rstrip("/")
        self._model = model
        self._max_tokens = max_tokens
        try:
            self._http = paying_client(private_key, max_price=max_price, timeout_s=ANSWER_TIMEOUT_S)
        except ValueError:
            raise TinyBrainError(
                "The key is no private key; it is 64 hexadecimal digits."
            ) from None

    async def ask(self, messages: Messages) -> AsyncIterator[tuple[str, Answer]]:
        """Yield each new piece of text with the answer so far; the last has the receipt.

        Raises:
            TinyBrainError: The service could not be reached, refused, or failed.
        """
        answer = Answer()
        body = {
            "model": self._model,
            "messages": list(messages),
            "max_tokens": self._max_tokens,
            "stream": True,
        }
        answer_id = ""
        try:
            async with self._http.stream(
                "POST", f"{self._url}/v1/chat/completions", json=body
            ) as response:
                answer_id = response.headers.get("X-TinyBrain-Receipt", "")
                if not response.is_success:
                    raise _refusal(response.status_code, await response.aread())
                async for chunk in _chunks(response):
                    yield _note(answer, chunk), answer
        except httpx.TransportError as error:
            if not answer_id:
                raise TinyBrainError(
                    f"{self._url} cannot be reached ({type(error).__name__}). Start the service "
                    "with `make run`, or name another with --url."
                ) from error
        if not answer.receipt:
            raise AnswerFailed(
                "The stream ended without its last event. What became of the payment is told at "
                f"{self._url}/v1/receipts/{answer_id}."
            )
        yield "", answer

    async def settled_receipt(self, answer_id: str) -> dict[str, Any]:
        """The receipt, once its payment has reached a final state or the wait is over."""
        receipt: dict[str, Any] = {}
        for _ in range(RECEIPT_TRIES):
            with contextlib.suppress(httpx.TransportError):  # the answer is there all the same
                response = await self._http.get(f"{self._url}/v1/receipts/{answer_id}")
                receipt = response.json() if response.is_success else {}
            payment = receipt.get("payment")
            if receipt and (payment is None or payment["state"] in FINAL_STATES):
                break
            await asyncio.sleep(RECEIPT_PAUSE_S)
        return receipt

    async def aclose(self) -> None:
        """Close the connection."""
        await self._http.aclose()


async def _chunks(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    decoder = SseDecoder()
    async for received in response.aiter_bytes():
        for data in decoder.feed(received):
            if data != "[DONE]":
                yield orjson.loads(data)


def _note(answer: Answer, chunk: dict[str, Any]) -> str:
    if "error" in chunk:
        raise AnswerFailed(chunk["error"].get("message", "The answer failed."))
    extra = chunk.get("x_tinybrain") or {}
    if "receipt" in extra:
        answer.receipt = extra
    if not chunk.get("choices"):
        return ""
    delta = chunk["choices"][0]["delta"]
    text = str(delta.get("content") or "")
    answer.text += text
    answer.reasoning += delta.get("reasoning_content") or ""
    return text


def _refusal(status: int, body: bytes) -> TinyBrainError:
    try:
        answer = orjson.loads(body)
        error = answer["error"]
        if isinstance(error, str):  # how a request without payment is answered
            return TinyBrainError(error, code=answer.get("code"))
        return TinyBrainError(str(error["message"]), code=error.get("code"))
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return TinyBrainError(f"The service answered {status} with a body that is not its own.")
