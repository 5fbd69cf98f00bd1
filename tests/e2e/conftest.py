"""The whole product, started once as a user starts it: `tinybrain devnet` in its own folder."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tinybrain.devnet.wallets import DevnetWallets, private_key
from tinybrain.payments.chain import Chain
from tinybrain.payments.rpc import Rpc

CHECKOUT = Path(__file__).parents[2]
START_TIMEOUT_S = 420
PATIENCE_S = 150  # for what takes seconds, on a machine that does other things meanwhile
API_KEY = "a-key-for-the-tests"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Product:
    """A running `tinybrain devnet`, and the commands a user gives beside it."""

    def __init__(self, home):
        self.home = home
        self.ports = [free_port() for _ in range(4)]
        self.url = f"http://127.0.0.1:{self.ports[0]}"
        self.rpc_url = f"http://127.0.0.1:{self.ports[1]}"
        self.output = home / "launcher.log"
        self.start()

    async def usdc(self, address):
        """Atomic USDC that an address holds."""
        rpc = Rpc(self.rpc_url)
        try:
            return await Chain(rpc, "0x036CbD53842c5426634e7929541eC2318f3dCF7e").balance(address)
        finally:
            await rpc.aclose()

    def start(self):
        """Start it, and wait for its banner."""
        http, chain, facilitator, upstream = map(str, self.ports)
        started = time.monotonic()
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "tinybrain", "devnet", "--home", self.home,
                    "--port", http, "--chain-port", chain,
                    "--facilitator-port", facilitator, "--upstream-port", upstream,
                ],
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ
                | {
                    "TINYBRAIN_API_KEY": API_KEY,
                    "TINYBRAIN_AUDIT_SHARE": "0",  # what is bought is counted
                    "TINYBRAIN_INGRESS_REPLICAS": "2",  # claims must hold across replicas
                    "COLUMNS": "120",
                },
                start_new_session=True,
            )  # fmt: skip
        while "Try:" not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() - started < START_TIMEOUT_S, self.said
            time.sleep(0.1)
        self.wallets = DevnetWallets.load_or_create(self.home / "devnet" / "wallets.json")

    def stop(self):
        """Ctrl-C, then wait; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_S)

    @property
    def said(self):
        return self.output.read_text()

    @property
    def caller_key(self):
        return private_key(self.wallets.caller)

    def tinybrain(self, *arguments, typed=None):
        """Run the CLI against it, with what is typed; returns its standard output."""
        return subprocess.run(
            [sys.executable, "-m", "tinybrain", *arguments],
            cwd=CHECKOUT,
            env=os.environ
            | {
                "TINYBRAIN_URL": self.url,
                "TINYBRAIN_HOME": str(self.home),
                "TINYBRAIN_RPC_URL": self.rpc_url,
            },
            input=typed,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        ).stdout

    def ask(self, question, *arguments):
        """`tinybrain ask --json`, parsed, once it is settled: the CLI itself waits seconds only."""
        answer = json.loads(self.tinybrain("ask", question, "--json", *arguments))
        self.wait_for_receipt(
            answer["receipt"]["receipt"], lambda receipt: receipt["payment"]["state"] == "settled"
        )
        return answer

    def balances(self):
        """Atomic USDC by wallet."""
        rows = json.loads(self.tinybrain("wallet", "--json"))
        return {row["name"]: row["usdc"] for row in rows}

    def wait_until_caller_has(self, amount):
        """Wait until the caller's payments are settled."""
        deadline = time.monotonic() + PATIENCE_S
        while (held := self.balances()["caller"]) != amount:
            assert time.monotonic() < deadline, held
            time.sleep(0.1)

    def receipt(self, answer_id):
        url = f"{self.url}/v1/receipts/{answer_id}"
        return httpx.get(url, timeout=60).raise_for_status().json()

    def wait_for_receipt(self, answer_id, accept, *, despite=httpx.TransportError):
        """The receipt, once `accept` says so; `despite` is what may fail until then."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                seen = self.receipt(answer_id)
            except despite as error:
                seen = error
            else:
                if accept(seen):
                    return seen
            assert time.monotonic() < deadline, seen
            time.sleep(0.1)

    def replicas(self, deployment):
        """Process ids of a deployment's replicas, by the titles Ray gives them."""
        title = re.compile(rf"^ray::ServeReplica:tinybrain:{deployment}(\.|$)")
        return [pid for pid, name in processes_of(self.process.pid) if title.match(name)]

    def wait_until_answering(self, timeout_s=240):
        """Wait until TinyChat answers again."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                response = httpx.post(
                    f"{self.url}/v1/chat/completions",
                    headers={"X-API-Key": API_KEY},
                    json={"model": "tinychat", "messages": [{"role": "user", "content": "Hi"}]},
                    timeout=30,
                )
                if response.status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, "the service did not recover"
            time.sleep(0.5)


def processes_of(ancestor):
    """(pid, title) of every descendant of a process."""
    parents, titles = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            title = (folder / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
        except OSError:
            continue
        pid = int(folder.name)
        parents[pid] = int(stat.rpartition(")")[2].split()[1])
        titles[pid] = title

    def descends(pid):
        while pid in parents and pid != ancestor:
            pid = parents[pid]
        return pid == ancestor

    return [(pid, titles[pid]) for pid in parents if pid != ancestor and descends(pid)]


@pytest.fixture(scope="session")
def product(devnet_tools, tmp_path_factory):
    home = tmp_path_factory.mktemp("product")
    (home / "tools").symlink_to(devnet_tools.folder)
    product = Product(home)
    yield product
    product.stop()
