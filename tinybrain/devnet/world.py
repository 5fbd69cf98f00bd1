"""The devnet as a whole: started together, stopped together, and what the application needs of it.

Only throwaway keys, only 127.0.0.1; everything it keeps is under `<home>/devnet`.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Self

from tinybrain.devnet.chain import NETWORK, Chain
from tinybrain.devnet.processes import ChildProcess, answers, claim_port
from tinybrain.devnet.token import place_usdc
from tinybrain.devnet.tools import install_tools
from tinybrain.devnet.upstream import ALIAS
from tinybrain.devnet.wallets import DevnetWallets, private_key
from tinybrain.networks import USDC_BY_NETWORK

START_TIMEOUT_S = 120
BLOCK_TIME_S = 12  # slower than Base's two, so that an idle devnet's state stays small


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the devnet listens at 127.0.0.1; 0 takes any free port."""

    chain: int = 8545
    facilitator: int = 4402
    upstream: int = 4403

    def claim(self) -> Self:
        """Check that all are free, and choose those that are 0.

        Raises:
            ConfigError: One is in use; the message names it and its option.
        """
        return type(self)(
            **{
                name: claim_port(
                    getattr(self, name), what=f"the devnet's {name}", option=f"--{name}-port"
                )
                for name in (field.name for field in fields(self))
            }
        )


DEFAULT_PORTS = Ports()


def say_nothing(_: str) -> None:
    """A reporter for callers who want no progress."""


class Devnet:
    """A chain with USDC and funded wallets, a facilitator, and a paid larger model."""

    def __init__(
        self,
        home: Path,
        *,
        ports: Ports = DEFAULT_PORTS,
        tools_folder: Path | None = None,
        report: Callable[[str], None] = say_nothing,
    ) -> None:
        self.home = home.absolute()
        self.folder = self.home / "devnet"
        self.wallets = DevnetWallets.load_or_create(self.folder / "wallets.json")
        self._ports = ports.claim()
        self._tools_folder = tools_folder or self.home / "tools"
        self._report = report
        self._chain: Chain | None = None
        self._servers: list[ChildProcess] = []
        self.facilitator_url = f"http://127.0.0.1:{self._ports.facilitator}"
        self.upstream_url = f"http://127.0.0.1:{self._ports.upstream}/api/v1"
        self.rpc_url = f"http://127.0.0.1:{self._ports.chain}"

    def start(self) -> Self:
        """Start everything; whatever was started is stopped if something fails.

        Raises:
            ConfigError: A tool is missing.
            ProcessFailed: A process died or did not get ready.
        """
        try:
            self._report("Installing the local chain (once)")
            tools = install_tools(self._tools_folder)
            self._report("Starting the chain, the facilitator and the larger model")
            self._chain = Chain(
                tools.anvil,
                port=self._ports.chain,
                state=self.folder / "chain.json",
                log=self.folder / "chain.log",
                block_time_s=BLOCK_TIME_S,
            )
            # These two take longest, so they load while the chain is prepared.
            self._servers.append(self._start_facilitator())
            self._servers.append(self._start_upstream())
            web3 = self._chain.wait_until_ready()
            self.wallets.fund(web3, place_usdc(web3, tools))
            for server in self._servers:
                server.wait_until_ready(timeout_s=START_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop everything, last started first; the chain's state is saved."""
        while self._servers:
            self._servers.pop().stop()
        if self._chain is not None:
            self._chain.stop()
            self._chain = None

    def require_alive(self) -> None:
        """Raise ProcessFailed if any of its processes ended."""
        for process in self.processes:
            process.require_alive()

    @property
    def processes(self) -> list[ChildProcess]:
        """All that run."""
        return [self._chain.process, *self._servers] if self._chain else list(self._servers)

    def environment(self) -> dict[str, str]:
        """The settings of an application that sells and buys on this devnet."""
        return {
            **self._network_settings(),
            "TINYBRAIN_HOME": str(self.home),
            # The ledger belongs to this chain: both live and are deleted together.
            "TINYBRAIN_LEDGER_URL": f"sqlite+aiosqlite:///{self.folder / 'ledger.db'}",
            "TINYBRAIN_PAY_TO": self.wallets.treasury.address,
            "TINYBRAIN_TREASURY_PRIVATE_KEY": private_key(self.wallets.treasury),
            "TINYBRAIN_FACILITATOR": "own",
            "TINYBRAIN_GAS_PRIVATE_KEY": private_key(self.wallets.gas),
            "TINYBRAIN_UPSTREAM_URL": self.upstream_url,
            "TINYBRAIN_UPSTREAM_MODEL": ALIAS,
            "TINYBRAIN_UPSTREAM_PAY_TO": self.wallets.provider.address,
        }

    def _network_settings(self) -> dict[str, str]:
        # The token too: the caller's own settings may name that of another network.
        token = USDC_BY_NETWORK[NETWORK]
        return {
            "TINYBRAIN_NETWORK": NETWORK,
            "TINYBRAIN_RPC_URL": self.rpc_url,
            "TINYBRAIN_ASSET": token.address,
            "TINYBRAIN_ASSET_NAME": token.name,
            "TINYBRAIN_ASSET_VERSION": token.version,
        }

    def _start_facilitator(self) -> ChildProcess:
        settings = {"TINYBRAIN_GAS_PRIVATE_KEY": private_key(self.wallets.facilitator)}
        return self._start_server("facilitator", self._ports.facilitator, settings)

    def _start_upstream(self) -> ChildProcess:
        settings = {
            "TINYBRAIN_PAY_TO": self.wallets.provider.address,
            "TINYBRAIN_FACILITATOR": self.facilitator_url,
        }
        return self._start_server("upstream", self._ports.upstream, settings)

    def _start_server(self, name: str, port: int, settings: Mapping[str, str]) -> ChildProcess:
        return ChildProcess(
            f"The devnet's {name}",
            [sys.executable, "-m", f"tinybrain.devnet.{name}", str(port)],
            log=self.folder / f"{name}.log",
            ready=partial(answers, f"http://127.0.0.1:{port}/health"),
            environment={**self._network_settings(), **settings},
        )
