"""A chain's node, asked over JSON-RPC 2.0.

Knows how to ask and how a node fails to answer; nothing of what the methods mean. Bound to the
event loop that first uses it. Over aiohttp, because httpx takes longer than a local node.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import aiohttp
import orjson

from tinybrain.errors import PaymentServiceError

RPC_TIMEOUT_S = 10.0
MAX_BATCH = 10  # public endpoints of Base take no more
MAX_ANSWER_BYTES = 2**25  # logs are the longest: some 40,000 of them
REVERTED = 3
"""Code of a call that the contract refused. Source: Ethereum execution APIs."""
BROADCAST = "eth_sendRawTransaction"
HEADERS = {"Content-Type": "application/json"}
CLOSED = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)
"""What sending on a kept-alive connection that the node closed looks like."""
NOT_THERE = aiohttp.ClientConnectorError  # of the same family

Request = tuple[str, Sequence[Any]]
"""A method and its parameters."""


class RpcRefused(PaymentServiceError):
    """The node answered with an error object; `reason` and `data` are its own words."""

    def __init__(self, rpc_code: int, reason: str, data: Any = None) -> None:
        super().__init__(
            "The chain's node refused a request: check TINYBRAIN_RPC_URL, or try again."
        )
        self.rpc_code = rpc_code
        self.reason = reason
        self.data = data

    def __reduce__(self) -> tuple[object, ...]:
        return RpcRefused, (self.rpc_code, self.reason, self.data)

    @property
    def reverted(self) -> bool:
        """Whether a contract refused or ran out of gas: an answer of the chain, not a fault."""
        reason = self.reason.lower().replace(" ", "")
        return self.rpc_code == REVERTED or "revert" in reason or "outofgas" in reason

    def says(self, *words: str) -> bool:
        """Whether the node's words have one of these in them, in lower case."""
        return any(word in self.reason.lower() for word in words)


class Rpc:
    """One node, over connections that are kept alive."""

    def __init__(self, url: str, *, timeout_s: float = RPC_TIMEOUT_S) -> None:
        self._url = url
        self._timeout = aiohttp.ClientTimeout(timeout_s)
        self._opened: aiohttp.ClientSession | None = None

    async def call(self, method: str, *params: Any) -> Any:
        """Ask one thing; returns the result as JSON gives it.

        Raises:
            RpcRefused: The node answered with an error object.
            PaymentServiceError: It did not answer, or not in JSON-RPC.
        """
        result = _result(await self._post(_envelope(0, method, params), again=method != BROADCAST))
        if isinstance(result, RpcRefused):
            raise result
        return result

    async def batch(self, requests: Sequence[Request]) -> list[Any]:
        """Ask several things at once; a refused one has an RpcRefused in its place.

        Raises:
            PaymentServiceError: The node did not answer all of them in JSON-RPC.
        """
        parts = [requests[i : i + MAX_BATCH] for i in range(0, len(requests), MAX_BATCH)]
        return [
            result for part in await asyncio.gather(*map(self._batch, parts)) for result in part
        ]

    async def call_all(self, requests: Sequence[Request]) -> list[Any]:
        """Likewise, and all must succeed.

        Raises:
            RpcRefused: The node answered one of them with an error object.
            PaymentServiceError: The node did not answer all of them in JSON-RPC.
        """
        results = await self.batch(requests)
        for result in results:
            if isinstance(result, RpcRefused):
                raise result
        return results

    async def aclose(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            await self._opened.close()

    async def _batch(self, requests: Sequence[Request]) -> list[Any]:
        envelopes = [_envelope(i, *request) for i, request in enumerate(requests)]
        again = all(method != BROADCAST for method, _ in requests)
        replies = await self._post(envelopes, again=again)
        if isinstance(replies, dict):  # the batch as a whole was refused
            return [_result(replies)] * len(requests)
        by_id = {reply.get("id"): reply for reply in replies if isinstance(reply, dict)}
        return [_result(by_id.get(i)) for i in range(len(requests))]

    async def _post(self, body: Any, *, again: bool) -> Any:
        try:
            reply = orjson.loads(await self._exchange(orjson.dumps(body)))
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
            closed = isinstance(error, CLOSED) and not isinstance(error, NOT_THERE)
            if again and closed:
                return await self._post(body, again=False)
            raise _unreachable(error) from error
        if not isinstance(reply, dict | list):
            raise _unreachable(TypeError())
        return reply

    async def _exchange(self, content: bytes) -> bytearray:
        request = self._session().post(self._url, data=content, allow_redirects=False)
        answer = bytearray()
        async with request as response:
            async for part in response.content.iter_any():
                answer += part
                if len(answer) > MAX_ANSWER_BYTES:
                    raise _unreachable(OverflowError())
        return answer

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:  # not before: aiohttp takes the event loop that is running
            self._opened = aiohttp.ClientSession(
                headers=HEADERS, timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._opened


def _envelope(number: int, method: str, params: Sequence[Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def _result(reply: Any) -> Any:
    if isinstance(reply, dict):
        if "result" in reply:
            return reply["result"]
        if isinstance(error := reply.get("error"), dict):
            code, reason = error.get("code"), str(error.get("message", ""))
            return RpcRefused(code if isinstance(code, int) else 0, reason, error.get("data"))
    raise _unreachable(LookupError())


def _unreachable(error: Exception) -> PaymentServiceError:
    return PaymentServiceError(
        f"The chain's node did not answer ({type(error).__name__}): check TINYBRAIN_RPC_URL, or "
        "try again."
    )
