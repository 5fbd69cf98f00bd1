"""What TinyBrain's gateway adds to an answer's latency, unpaid and paid over x402.

The same answer of a model that costs no time is asked for directly, through the gateway without
Ray, and through the Ray Serve application, each streamed and whole, one request at a time. Every
round asks in every way, in random order, so that a busy machine slows all of them.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import secrets
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path

import yaml  # type: ignore[import-untyped]  # it ships no types
from caller import Caller, Way
from eth_account.signers.local import LocalAccount
from latency import Row, Sample, markdown, overhead, payment_steps
from mock_model import MODEL

from tinybrain.config import SERVE_ENVIRONMENT
from tinybrain.devnet.processes import (
    ChildProcess,
    adopt_orphans,
    answers,
    claim_port,
    end_descendants,
)
from tinybrain.devnet.wallets import private_key
from tinybrain.devnet.world import Devnet, Ports
from tinybrain.errors import ConfigError

BENCHMARKS = Path(__file__).parent
CHECKOUT = BENCHMARKS.parent
START_TIMEOUT_S = 300
WARM_UP = 3
REPEATS = 5  # of each way in one round
ROUNDS = 20
QUICK_ROUNDS = 3

DIRECT = "direct"
STREAMED = "An answer of 20 tokens, streamed (ms)"
WHOLE = "The same answer, whole; paid ones are settled before they are sent (ms)"
PAYING = "What an x402 caller waits for (ms)"

Command = Callable[[int], list[str]]
"""The command that serves something at a port."""


class World:
    """The devnet, the mock model and both gateways, each a process of its own."""

    def __init__(self, stack: ExitStack, home: Path) -> None:
        self._stack = stack
        self._home = home
        tools = CHECKOUT / ".tinybrain" / "tools"
        self._devnet = Devnet(home, ports=Ports(0, 0, 0), tools_folder=tools)
        stack.callback(self._devnet.stop)
        self._devnet.start()
        wallets = self._devnet.wallets
        self._payer = wallets.caller
        self._api_key = secrets.token_hex()
        self._model = self._start("mock_model", _script("mock_model"), {})
        # Each gateway with a gas wallet of its own: two would take each other's nonces.
        self._gateways = {
            "library": self._start_gateway("library", _script("library_gateway"), wallets.provider),
            "Ray Serve": self._start_gateway("serve", self._serve, wallets.gas),
        }

    def ways(self) -> list[Way]:
        """Every way to an answer; the direct one comes before those it is compared with."""
        gateways = self._gateways.items()
        return [
            way
            for stream in (True, False)
            for way in (
                Way(DIRECT, self._model, stream),
                *(Way(f"{name}, unpaid", url, stream, self._api_key) for name, url in gateways),
                *(Way(f"{name}, x402", url, stream, payer=self._payer) for name, url in gateways),
            )
        ]

    def _start_gateway(self, name: str, command: Command, gas: LocalAccount) -> str:
        settings = {
            **self._devnet.environment(),
            "TINYBRAIN_LEDGER_URL": f"sqlite+aiosqlite:///{self._home / name}.db",
            "TINYBRAIN_GAS_PRIVATE_KEY": private_key(gas),
            "TINYBRAIN_API_KEY": self._api_key,
            "TINYBRAIN_UPSTREAM_URL": f"{self._model}/v1",
            "TINYBRAIN_UPSTREAM_MODEL": MODEL,
            "TINYBRAIN_UPSTREAM_API_KEY": "none",
            "TINYBRAIN_TINYCHAT_MIN_REPLICAS": "0",  # it is never asked here
            **SERVE_ENVIRONMENT,
        }
        return self._start(name, command, settings)

    def _serve(self, port: int) -> list[str]:
        config = yaml.safe_load((CHECKOUT / "serve_config.yaml").read_text())
        config["http_options"]["port"] = port
        copy = self._home / "serve_config.yaml"
        copy.write_text(yaml.safe_dump(config))
        return [sys.executable, "-m", "ray.serve.scripts", "run", str(copy)]

    def _start(self, name: str, command: Command, environment: Mapping[str, str]) -> str:
        port = _free_port()
        url = f"http://127.0.0.1:{port}"
        process = ChildProcess(
            name,
            command(port),
            log=self._home / f"{name}.log",
            ready=partial(answers, f"{url}/health"),
            environment=environment,
        )
        self._stack.callback(process.stop)
        process.wait_until_ready(timeout_s=START_TIMEOUT_S)
        return url


async def measure(ways: Sequence[Way], *, rounds: int) -> dict[Way, list[Sample]]:
    """The samples of each way, from interleaved rounds."""
    samples: dict[Way, list[Sample]] = {way: [] for way in ways}
    async with AsyncExitStack() as stack:
        callers = {way: Caller(way) for way in ways}
        for caller in callers.values():
            stack.push_async_callback(caller.aclose)
            for _ in range(WARM_UP):
                await caller.ask(0)
        for number in range(rounds):
            for way in random.sample(ways, len(ways)):
                for _ in range(REPEATS):
                    samples[way].append(await callers[way].ask(number))
    return samples


def tables(samples: Mapping[Way, Sequence[Sample]]) -> dict[str, list[Row]]:
    """What is reported, by heading; the direct way comes before those it is compared with."""
    reported: dict[str, list[Row]] = {STREAMED: [], WHOLE: [], PAYING: []}
    direct: Sequence[Sample] = ()
    for way, timed in samples.items():
        direct = timed if way.name == DIRECT else direct
        name: Row = {"way": way.name}
        reported[STREAMED if way.stream else WHOLE].append(name | overhead(timed, direct))
        if way.payer:
            reported[PAYING].append(
                {**name, "answer": "streamed" if way.stream else "whole"} | payment_steps(timed)
            )
    return reported


def machine() -> dict[str, str | int | None]:
    """What the figures depend on."""
    return {
        "CPUs": os.cpu_count(),
        "system": platform.platform(),
        "Python": platform.python_version(),
        "Ray": version("ray"),
    }


def load() -> float:
    """Processes that wanted a CPU, averaged over the last minute."""
    return round(os.getloadavg()[0], 1)


def _free_port() -> int:
    # None that the system hands out: Ray opens dozens of those before its proxy listens.
    while True:
        with suppress(ConfigError):
            return claim_port(random.randrange(20_000, 30_000), what="a server", option="")


def _script(name: str) -> Command:
    return lambda port: [sys.executable, str(BENCHMARKS / f"{name}.py"), str(port)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, under a minute")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there too")
    arguments = parser.parse_args()
    rounds = QUICK_ROUNDS if arguments.quick else ROUNDS
    report: dict[str, object] = {"rounds": rounds, "repeats": REPEATS, **machine()}
    adopt_orphans()
    with tempfile.TemporaryDirectory() as home, ExitStack() as stack:
        stack.callback(end_descendants)
        ways = World(stack, Path(home)).ways()
        report["load before"] = load()
        samples = asyncio.run(measure(ways, rounds=rounds))
        report["load after"] = load()
    print(", ".join(f"{name} {value}" for name, value in report.items()))
    reported = tables(samples)
    for heading, rows in reported.items():
        print(f"\n{heading}\n\n{markdown(rows)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report | {"tables": reported}, indent=2))


if __name__ == "__main__":
    main()
