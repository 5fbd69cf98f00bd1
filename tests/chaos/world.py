"""The product as it is run, with parts that may be killed: Ray Serve, the devnet, the ledger.

Unlike `tinybrain devnet`, which ends when one of its processes does, whoever kills one here can
start it again, as an operator's supervisor would.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
from eth_account import Account

from tests.payments.local_postgres import LocalPostgres
from tinybrain.config import load_settings
from tinybrain.devnet import launcher
from tinybrain.devnet.chain import Chain, connect, control
from tinybrain.devnet.processes import claim_port
from tinybrain.devnet.token import mint, place_usdc
from tinybrain.devnet.world import BLOCK_TIME_S, Devnet, Ports
from tinybrain.usdc import Usdc

API_KEY = "a-key-for-the-tests"
WALLET_USDC = Usdc(1_000_000)
CHECKOUT = Path(__file__).parents[2]
SETTINGS = {
    "TINYBRAIN_API_KEY": API_KEY,
    "TINYBRAIN_INGRESS_REPLICAS": "2",
    "TINYBRAIN_PRICES": '{"/chat/completions": {"flow": "upfront"}}',
    "TINYBRAIN_MAX_REFUSALS": "100000",  # all callers have one address
    "TINYBRAIN_MAX_COST_PER_HOUR": "1000",
    "TINYBRAIN_MAX_COST_PER_DAY": "1000",
    "TINYBRAIN_MAX_COST_PER_PROVIDER": "1000",
}
# So that what a killed process left is ended within the run.
SHORT_TIMES = {
    "TINYBRAIN_ANSWER_TIMEOUT_S": "12",
    "TINYBRAIN_PAYMENT_TIMEOUT_S": "60",
    "TINYBRAIN_BAR_TAB_IDLE_S": "15",
    "TINYBRAIN_TAB_IDLE_S": "15",
}
# Where nothing is killed: hundreds of questions at once wait for each other.
LONG_TIMES = {
    "TINYBRAIN_ANSWER_TIMEOUT_S": "120",
    "TINYBRAIN_PAYMENT_TIMEOUT_S": "300",
    "TINYBRAIN_BAR_TAB_IDLE_S": "300",
    "TINYBRAIN_TAB_IDLE_S": "300",
}
START_TIMEOUT_S = 420
HEAL_TIMEOUT_S = 240
POLL_S = 0.1


class _Devnet(Devnet):
    """A devnet whose ledger may be elsewhere, and whose processes may be started again."""

    ledger_url: str | None = None

    def environment(self):
        chosen = {"TINYBRAIN_LEDGER_URL": self.ledger_url} if self.ledger_url else {}
        return super().environment() | chosen


class World:
    """A running product. `database` is "sqlite" or "postgresql"."""

    def __init__(self, home, tools, *, database, times):
        self.database = database
        self.times = times
        self.tools = tools
        self.postgres = None
        ports = Ports(0, 0, 0)
        self.devnet = _Devnet(home, ports=ports, tools_folder=tools.folder)
        self._app = None

    def start(self):
        """Start everything, and wait until it answers."""
        os.environ.update(SETTINGS | self.times)
        try:
            if self.database == "postgresql":
                self.postgres = LocalPostgres()
                self.postgres.start()
                self.postgres.create_database("ledger")
                self.devnet.ledger_url = self.postgres.url("ledger")
            self.devnet.start()
            port = claim_port(0, what="a test", option="")
            self.url = f"http://127.0.0.1:{port}"
            self._app = launcher._start_app(self.devnet, port, None)
            self._app.wait_until_ready(timeout_s=START_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self):
        """Stop everything; nothing is left over."""
        if self._app is not None:
            family = psutil.Process(self._app.pid).children(recursive=True)
            self._app.stop(grace_s=20)
            _end(family)
        self.devnet.stop()
        if self.postgres is not None:
            self.postgres.remove()
        for name in SETTINGS | self.times:
            os.environ.pop(name, None)

    @property
    def settings(self):
        """The settings of the application."""
        names = self.devnet.environment().items()
        return load_settings(
            **{name.removeprefix("TINYBRAIN_").lower(): value for name, value in names}
        )

    # --- its parts

    def replicas(self, deployment):
        """Process ids of a deployment's replicas, by the titles Ray gives them."""
        title = re.compile(rf"ray::ServeReplica:tinybrain:{deployment}(\.|$)")
        found = []
        for process in psutil.Process(self._app.pid).children(recursive=True):
            try:
                if title.match(process.cmdline()[0]):
                    found.append(process.pid)
            except (psutil.Error, IndexError):
                continue
        return found

    @property
    def chain(self):
        """The chain's process."""
        return self.devnet._chain.process

    @property
    def facilitator(self):
        """The devnet's facilitator."""
        return self.devnet._servers[0]

    @property
    def upstream(self):
        """The devnet's paid larger model."""
        return self.devnet._servers[1]

    async def crash_chain(self, down_s):
        """`kill -9` of a node that keeps what it has answered, as a real one does.

        anvil writes its state every other second only, so it stops mining until it has; what is
        sent to it meanwhile is in no block yet, and lost.
        """
        state = self.devnet.folder / "chain.json"
        web3 = connect(self.devnet.rpc_url)
        control(web3, "setAutomine", False)
        web3.provider.make_request("evm_setIntervalMining", [0])
        await _written(state)  # perhaps begun before
        kept = await _written(state)
        self._kill(self.devnet._chain.process)
        await asyncio.sleep(down_s)
        state.write_bytes(kept)
        self.devnet._chain = Chain(
            self.tools.anvil,
            port=self.devnet._ports.chain,
            state=state,
            log=self.devnet.folder / "chain.log",
            block_time_s=BLOCK_TIME_S,
        )
        await asyncio.to_thread(self.devnet._chain.wait_until_ready)

    async def crash_facilitator(self, down_s):
        """`kill -9` of the upstream's facilitator, and its restart."""
        await self._crash_server(0, self.devnet._start_facilitator, down_s)

    async def crash_upstream(self, down_s):
        """`kill -9` of the larger model, and its restart."""
        await self._crash_server(1, self.devnet._start_upstream, down_s)

    async def crash_database(self, down_s):
        """`kill -9` of PostgreSQL with all its processes, and its restart."""
        self.postgres.kill()
        await asyncio.sleep(down_s)
        await asyncio.to_thread(self.postgres.start)

    async def _crash_server(self, index, start, down_s):
        self._kill(self.devnet._servers[index])
        await asyncio.sleep(down_s)
        # Here, not in a thread: the process would end with the thread that started it.
        server = self.devnet._servers[index] = start()
        await asyncio.to_thread(server.wait_until_ready, timeout_s=HEAL_TIMEOUT_S)

    def _kill(self, process):
        os.kill(process.pid, signal.SIGKILL)
        process.stop()

    # --- its users

    def new_wallets(self, count):
        """Wallets with a dollar each."""
        web3 = connect(self.devnet.rpc_url)
        token = place_usdc(web3, self.tools)
        wallets = [Account.create() for _ in range(count)]
        for wallet in wallets:
            mint(web3, token, wallet.address, WALLET_USDC)
        return wallets

    async def healed(self):
        """Wait until both models and Settlement answer, and every deployment has its replicas."""
        deadline = time.monotonic() + HEAL_TIMEOUT_S
        wanted = {"PaymentIngress": 2, "Settlement": 1, "TinyChat": 1, "Escalation": 1}
        async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
            for model in ("tinychat", self.settings.upstream_model):
                while not await self._answers(http, model):
                    assert time.monotonic() < deadline, f"{model} does not answer any more"
                    await asyncio.sleep(5 * POLL_S)
            while not await self._settles(http):
                assert time.monotonic() < deadline, "Settlement does not answer any more"
                await asyncio.sleep(5 * POLL_S)
        while any(len(self.replicas(name)) < count for name, count in wanted.items()):
            assert time.monotonic() < deadline, "a deployment lacks replicas"
            await asyncio.sleep(5 * POLL_S)

    async def _answers(self, http, model):
        body = {
            "model": model,
            "max_tokens": 2,
            "messages": [{"role": "user", "content": "Hi"}],
        }
        try:
            response = await http.post(
                f"{self.url}/v1/chat/completions", headers={"X-API-Key": API_KEY}, json=body
            )
        except httpx.TransportError:
            return False
        return response.status_code == httpx.codes.OK

    async def _settles(self, http):
        try:
            response = await http.get(f"{self.url}/health")
        except httpx.TransportError:
            return False
        return response.is_success and response.json()["settlement"] != "unknown"

    def audit(self):
        """`tinybrain audit` in a process of its own: its exit code and what it says."""
        done = subprocess.run(
            [sys.executable, "-m", "tinybrain", "audit"],
            cwd=CHECKOUT,
            env={**os.environ, **self.devnet.environment()},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


async def _written(path):
    """Wait until a JSON file is written again; its content, once it is whole."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    while True:
        await asyncio.sleep(POLL_S)
        if path.exists() and path.stat().st_mtime_ns != before:
            with contextlib.suppress(ValueError):
                content = path.read_bytes()
                json.loads(content)
                return content


def _end(processes):
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)
