"""Real payments, the devnet's facilitator, and a real HTTP server that misbehaves."""

import asyncio
import json
import socket
from functools import partial
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from eth_account import Account
from x402 import x402Client
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.schemas import PaymentRequired, PaymentRequirements

from tinybrain.devnet.chain import NETWORK
from tinybrain.devnet.facilitator import build_app
from tinybrain.devnet.wallets import private_key
from tinybrain.networks import USDC_BY_NETWORK
from tinybrain.payments.facilitators import OwnFacilitator
from tinybrain.payments.rpc import Rpc
from tinybrain.payments.wallet import HotWallet

TOKEN = USDC_BY_NETWORK[NETWORK]
HASH = f"0x{'ab' * 32}"
SUCCESS = {"success": True, "transaction": HASH, "network": NETWORK}
CONFIDENTIAL = "confidential"  # stands in every bad answer, and must never be repeated


async def reply(writer, status, body, *headers, length=None):
    """One HTTP answer; `length` may lie about the body."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {length or len(content)}", *headers]
    writer.write("\r\n".join([*head, "Connection: close", "", ""]).encode() + content)
    await writer.drain()


def answering(status, body, *headers, length=None):
    return lambda _, writer: reply(writer, status, body, *headers, length=length)


async def never(_, writer):
    await asyncio.Event().wait()


async def drip(beginning, _, writer):
    """Nothing for long, but never the end."""
    writer.write(beginning)
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def flood(_, writer):
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        writer.write(b" " * 65536)
        await writer.drain()


async def hang_up(_, writer):
    pass


async def speak_no_http(_, writer):
    writer.write(f"{CONFIDENTIAL}\r\n\r\n".encode())


VERDICT = {"isValid": True, **SUCCESS, "note": CONFIDENTIAL}
BROKEN = {
    "hangs": never,
    "drips its headers": partial(drip, b"HTTP/1.1 200 OK\r\nX: "),
    "drips its body": partial(drip, b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"),
    "floods": flood,
    "hangs up": hang_up,
    "hangs up within the body": answering(200, VERDICT, length=1000),
    "speaks no HTTP": speak_no_http,
    "500": answering(500, VERDICT),
    "503": answering(503, VERDICT),
    "429": answering(429, VERDICT),
    "429 with a refusal": answering(429, {"isValid": False, "success": False}),
    "401": answering(401, {"error": CONFIDENTIAL}),
    "400 with an approval": answering(400, VERDICT),
    "204": answering(204, b""),
    "HTML": answering(200, f"<html>{CONFIDENTIAL}</html>".encode()),
    "half a JSON": answering(200, b'{"isValid": true, "success": tr'),
    "deep JSON": answering(200, b'{"isValid": true, "success": true, "extra":' + b"[" * 30_000),
    "huge JSON": answering(200, VERDICT | {"pad": "x" * 70_000}),
    "a JSON list": answering(200, [VERDICT]),
    "another shape": answering(200, {"isValid": "yes", "success": 1, "transaction": HASH}),
    "bytes": answering(200, bytes(range(256))),
    "its own fault": answering(
        200,
        {
            "isValid": False,
            "success": False,
            "invalidReason": "unexpected_verify_error",
            "errorReason": "unexpected_settle_error",
        },
    ),
    "another payer": answering(200, VERDICT | {"payer": f"0x{'99' * 20}"}),
}
LYING = {
    "no hash": SUCCESS | {"transaction": ""},
    "null for a hash": SUCCESS | {"transaction": None},
    "no hash at all": {"success": True, "network": NETWORK},
    "half a hash": SUCCESS | {"transaction": HASH[:34]},
    "a hash and more": SUCCESS | {"transaction": f"{HASH}\n"},
    "another network": SUCCESS | {"network": "eip155:8453"},
    "no network": {"success": True, "transaction": HASH},
    "pending without a hash": {"success": False, "errorReason": "settlement_pending"},
}


class Server:
    """An HTTP server with one behaviour; it remembers what it was asked."""

    def __init__(self, behaviour):
        self.behaviour = behaviour
        self.requests = []
        self._tasks = set()

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def stop(self):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = httpx.Headers([line.split(": ", 1) for line in head[1:] if line])
            body = await reader.readexactly(int(headers["content-length"]))
            path = head[0].split(" ")[1]
            self.requests.append(SimpleNamespace(path=path, headers=headers, body=body))
            await self.behaviour(self.requests[-1], writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client gave up, as it should
        finally:
            writer.close()


@pytest.fixture
async def start_server():
    """Starts a server with a behaviour: `async def behaviour(request, writer)`."""
    servers = []

    async def start(behaviour):
        servers.append(await Server(behaviour).start())
        return servers[-1]

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
def answer():
    """A behaviour that answers a status and a JSON body."""
    return answering


@pytest.fixture
def dead_url():
    """Nobody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture(params=["refuses connections", "302", *BROKEN])
async def broken_url(request, start_server, dead_url):
    """A facilitator that cannot be understood, in every way we know."""
    if request.param == "refuses connections":
        return dead_url
    if request.param == "302":
        good = await start_server(answering(200, VERDICT))
        moved = answering(302, VERDICT, f"Location: {good.url}/settle")
        return (await start_server(moved)).url
    return (await start_server(BROKEN[request.param])).url


@pytest.fixture(params=LYING)
async def lying_url(request, start_server):
    """A facilitator that claims a settlement it does not prove."""
    return (await start_server(answering(200, LYING[request.param]))).url


class MemoryStore:
    """A TransactionStore that lasts as long as its test."""

    def __init__(self):
        self.kept = {}

    async def record(self, tx):
        self.kept[tx.hash] = tx

    async def unmined(self, wallet):
        return list(self.kept.values())

    async def mined(self, wallet, nonce, tx_hash):
        self.kept = {key: tx for key, tx in self.kept.items() if tx.nonce != nonce}


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
async def good_url(chain, store):
    """The devnet's facilitator with a gas wallet of its own, on the session's chain."""
    rpc = Rpc(chain.url)
    wallet = HotWallet(private_key(chain.new_wallet(0)), rpc, NETWORK, store)
    app = build_app(OwnFacilitator(rpc, wallet, NETWORK, TOKEN.address))
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn offers nothing to wait for
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


@pytest.fixture
def terms():
    """One cent to an address that has nothing yet."""
    return PaymentRequirements(
        scheme="exact",
        network=NETWORK,
        asset=TOKEN.address,
        amount="10000",
        pay_to=Account.create().address,
        max_timeout_seconds=300,
        extra={"name": TOKEN.name, "version": TOKEN.version},
    )


@pytest.fixture
def sign(terms):
    """Signs a payment of the terms with a wallet."""

    async def sign(wallet):
        client = x402Client()
        register_exact_evm_client(client, wallet)
        return await client.create_payment_payload(PaymentRequired(x402_version=2, accepts=[terms]))

    return sign


@pytest.fixture
async def payment(sign):
    """A payment by a wallet that is not on any chain."""
    return await sign(Account.create())
