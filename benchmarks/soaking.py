"""Thousands of paid requests to the whole service: is a row lost, does its memory grow?

Half of the callers have tabs, the others pay each answer over x402; half of the answers are
streamed. At the end the tabs are closed, every row must become final, and `tinybrain audit`
compares ledger and chain. Needs Linux's /proc.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import linear_regression
from typing import Any, NamedTuple

import httpx
from caller import first_token_at
from latency import Row
from mock_model import MODEL
from paying import PRODUCT, LocalChain, Payer
from sqlalchemy import ColumnElement, Table, func, select

from tinybrain.devnet.processes import ChildProcess, claim_port
from tinybrain.devnet.processes import answers as is_up
from tinybrain.payments.database import Database
from tinybrain.payments.receipts import percentile
from tinybrain.payments.records import UNSETTLED, ChargeState, PaymentState, TabState
from tinybrain.payments.schema import answers, charges, payments, tabs

CALLERS = 16  # at once; every second one has a tab
ANSWERS_OF_A_TAB = 100
TIMEOUT_S = 120
SAMPLE_S = 0.5
WARM_UP = 0.2  # of the requests, before memory is expected to stay as it is
CONFIRMATIONS = 10
MIB = 2**20
FINAL = {
    answers: answers.c.outcome != "running",
    payments: payments.c.state.not_in(UNSETTLED) & (payments.c.final | payments.c.block.is_(None)),
    tabs: tabs.c.state == TabState.CLOSED,
    charges: charges.c.state != ChargeState.HELD,
}
"""What a row is at its end."""


class Sample(NamedTuple):
    """The service's memory after so many answers, in MiB."""

    answered: int
    memory: float


class Service:
    """The gateway without Ray and the model behind it, each a process of its own."""

    def __init__(self, stack: ExitStack, home: Path, chain: LocalChain) -> None:
        self.ledger_url = f"sqlite+aiosqlite:///{home}/soak.db"
        model = _start(stack, home, "mock_model", {})
        self.environment = {
            **chain.environment(self.ledger_url),
            "TINYBRAIN_UPSTREAM_URL": f"{model[1]}/v1",
            "TINYBRAIN_UPSTREAM_MODEL": MODEL,
            "TINYBRAIN_UPSTREAM_API_KEY": "none",
        }
        self._process, self.url = _start(stack, home, "library_gateway", self.environment)

    def memory(self) -> float:
        """What it holds of the machine's memory, in MiB."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / MIB

    def audit(self) -> None:
        """Compare its ledger with the chain.

        Raises:
            subprocess.CalledProcessError: They differ.
        """
        command = [sys.executable, "-m", "tinybrain", "audit"]
        subprocess.run(command, check=True, env={**os.environ, **self.environment})


class Load:
    """Callers who share out a number of requests among them."""

    def __init__(self, http: httpx.AsyncClient, count: int) -> None:
        self.times: list[float] = []
        self._http = http
        self._numbers = iter(range(count))

    async def with_payments(self, payer: Payer) -> None:
        """Pay each answer over x402."""
        terms = (await self._http.post(PRODUCT.path, json=_body(0))).json()["accepts"][0]
        for number in self._numbers:
            await self._ask(number, {"PAYMENT-SIGNATURE": payer.pay(terms)})

    async def with_tabs(self, payer: Payer) -> None:
        """Open a tab, use it up, close it, and open the next."""
        for first in self._numbers:
            token, path = await self._open_tab(payer)
            headers = {"Authorization": f"Bearer {token}"}
            await self._ask(first, headers)
            for number, _ in zip(self._numbers, range(ANSWERS_OF_A_TAB - 2), strict=False):
                await self._ask(number, headers)  # one answer's price is left, to be refunded
            (await self._http.delete(path, headers=headers)).raise_for_status()

    async def _open_tab(self, payer: Payer) -> tuple[str, str]:
        body = {"deposit": f"{ANSWERS_OF_A_TAB * PRODUCT.price / 10**6:.2f}"}
        challenge = await self._http.post("/v1/tabs", json=body)
        paid = {"PAYMENT-SIGNATURE": payer.pay(challenge.json()["accepts"][0])}
        opened = await self._http.post("/v1/tabs", json=body, headers=paid)
        opened.raise_for_status()
        return opened.json()["token"], f"/v1/tabs/{opened.json()['id']}"

    async def _ask(self, number: int, headers: Mapping[str, str]) -> None:
        body, started = _body(number), time.perf_counter()
        request = self._http.stream("POST", PRODUCT.path, json=body, headers=headers)
        async with request as response:
            if response.is_error:
                raise RuntimeError(f"Request {number}: {(await response.aread()).decode()}")
            lines = [(time.perf_counter(), line) async for line in response.aiter_lines()]
        self.times.append((time.perf_counter() - started) * 1000)
        first_token_at(lines, stream=body["stream"])  # whether it is the model's answer


async def soak(chain: LocalChain, home: Path, *, count: int) -> list[Row]:
    """Ask so often; returns a table of one row.

    Raises:
        RuntimeError: A request was refused, or a row is not final in time.
        subprocess.CalledProcessError: Ledger and chain differ.
    """
    payers = [chain.new_payer(PRODUCT.price * 2 * (count + ANSWERS_OF_A_TAB)) for _ in range(CALLERS)]
    with ExitStack() as stack:
        service = Service(stack, home, chain)
        started = time.perf_counter()
        async with httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S) as http:
            load = Load(http, count)
            watching = asyncio.create_task(_watch(service, load))
            await asyncio.gather(
                *(load.with_payments(payer) for payer in payers[::2]),
                *(load.with_tabs(payer) for payer in payers[1::2]),
            )
            seconds = time.perf_counter() - started
        chain.mine(CONFIRMATIONS)
        counted = await _counted(service.ledger_url)
        watching.cancel()
        service.audit()
        return [_row(load, seconds, counted, watching)]
