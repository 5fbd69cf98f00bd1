"""JSON-RPC: an answer of the chain, a refusal of the node, and a broken line are told apart."""

import asyncio
import json
import pickle
import re
from contextlib import asynccontextmanager

import pytest
from web3 import Web3

from tinybrain.errors import PaymentServiceError
from tinybrain.payments import rpc as rpc_module
from tinybrain.payments.rpc import Rpc, RpcRefused

GOOD = b'{"jsonrpc":"2.0","id":0,"result":"0x1"}'


@asynccontextmanager
async def node(*answers, hang=False):
    """A server that gives each request the next of its answers, then closes the connection."""
    left = list(answers)
    serving = set()

    async def serve(reader, writer):
        serving.add(asyncio.current_task())
        try:
            if hang:
                await asyncio.sleep(60)
            while left:
                head = await reader.readuntil(b"\r\n\r\n")
                (length,) = re.findall(rb"content-length: (\d+)", head.lower())
                await reader.readexactly(int(length))
                status, body = left.pop(0)
                if status is None:
                    break
                lines = b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
                writer.write(lines + body)
        finally:
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    timeout_s = 0.5 if hang else rpc_module.RPC_TIMEOUT_S
    rpc = Rpc(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout_s=timeout_s)
    yield rpc
    await rpc.aclose()
    server.close()
    for task in serving:
        task.cancel()
    await asyncio.gather(*serving, return_exceptions=True)


@pytest.mark.parametrize(
    "answer",
    [(502, b"<html>"), (200, b"[]"), (200, b"1"), (200, b"{}"), (200, b'{"error":"x"}')],
)
async def test_what_is_no_json_rpc_is_no_answer(answer):
    async with node(answer) as rpc:
        with pytest.raises(PaymentServiceError) as caught:
            await rpc.call("eth_chainId")
    assert not isinstance(caught.value, RpcRefused)


async def test_a_silent_or_dead_node_is_no_answer():
    async with node(hang=True) as rpc:
        with pytest.raises(PaymentServiceError, match="TimeoutError"):
            await rpc.call("eth_chainId")
    rpc = Rpc("http://127.0.0.1:9")
    with pytest.raises(PaymentServiceError, match="ClientConnectorError"):
        await rpc.call("eth_chainId")
    await rpc.aclose()


async def test_a_connection_that_the_node_closed_is_tried_once_more():
    async with node((200, GOOD), (None, b""), (200, GOOD)) as rpc:
        assert [await rpc.call("eth_chainId") for _ in range(2)] == ["0x1", "0x1"]


async def test_a_broadcast_is_not_repeated_by_itself():
    async with node((None, b""), (200, GOOD)) as rpc:
        with pytest.raises(PaymentServiceError):
            await rpc.call("eth_sendRawTransaction", "0x")


async def test_an_answer_without_end_is_no_answer(monkeypatch):
    monkeypatch.setattr(rpc_module, "MAX_ANSWER_BYTES", len(GOOD))
    async with node((200, GOOD), (200, GOOD + b" ")) as rpc:
        assert await rpc.call("eth_chainId") == "0x1"
        with pytest.raises(PaymentServiceError, match="OverflowError"):
            await rpc.call("eth_chainId")


async def test_no_proxy_of_the_environment_comes_between(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with node((200, GOOD)) as rpc:
        assert await rpc.call("eth_chainId") == "0x1"


@pytest.mark.parametrize(
    ("error", "reverted"),
    [
        ({"code": 3, "message": "execution reverted: no", "data": "0x08"}, True),
        ({"code": -32000, "message": "out of gas"}, True),
        ({"code": -32003, "message": "EVM error OutOfGas"}, True),
        ({"code": -32005, "message": "limit exceeded"}, False),
    ],
)
async def test_a_refusal_carries_the_nodes_words_and_says_whether_the_chain_spoke(error, reverted):
    async with node((200, json.dumps({"id": 0, "error": error}).encode())) as rpc:
        with pytest.raises(RpcRefused) as caught:
            await rpc.call("eth_call")
    refusal = pickle.loads(pickle.dumps(caught.value))
    assert (refusal.rpc_code, refusal.reason) == (error["code"], error["message"])
    assert (refusal.data, refusal.reverted) == (error.get("data"), reverted)


async def test_a_batch_keeps_its_order_and_isolates_refusals():
    replies = [{"id": 1, "error": {"code": -1, "message": "no"}}, {"id": 0, "result": 7}]
    async with node((200, json.dumps(replies).encode())) as rpc:
        first, second = await rpc.batch([("a", ()), ("b", ())])
    assert (first, second.reason) == (7, "no")


async def test_a_batch_with_a_missing_reply_is_no_answer():
    async with node((200, b'[{"id":0,"result":1}]')) as rpc:
        with pytest.raises(PaymentServiceError):
            await rpc.batch([("a", ()), ("b", ())])


async def test_a_batch_refused_as_a_whole_is_refused_for_each():
    async with node((200, b'{"id":null,"error":{"code":-1,"message":"no batches"}}')) as rpc:
        refusals = await rpc.batch([("a", ()), ("b", ())])
    assert [refusal.reason for refusal in refusals] == ["no batches"] * 2


@pytest.mark.chain
async def test_a_long_batch_is_asked_in_parts(chain):
    rpc = Rpc(chain.url)
    hashes = await rpc.batch([("web3_sha3", (f"0x{number:02x}",)) for number in range(25)])
    assert hashes == [Web3.keccak(number).to_0x_hex() for number in range(25)]
    await rpc.aclose()
