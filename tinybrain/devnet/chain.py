"""The local chain: anvil with Base Sepolia's chain id, its state kept in a file.

Only throwaway keys may be used on it: a signature made here is valid on the real Base Sepolia.
"""

from functools import partial
from pathlib import Path

from web3 import HTTPProvider, Web3
from web3.types import RPCEndpoint

from tinybrain.devnet.processes import ChildProcess, listens
from tinybrain.errors import PaymentServiceError

CHAIN_ID = 84532
NETWORK = f"eip155:{CHAIN_ID}"
STATE_INTERVAL_S = 2
START_TIMEOUT_S = 30


class Chain:
    """A running anvil. Its state is saved every two seconds and when it stops.

    A transaction is mined at once; with `block_time_s` time passes without any too, as on a real
    chain: else nothing ever expires or becomes final there.
    """

    def __init__(
        self,
        anvil: Path,
        *,
        port: int,
        state: Path,
        log: Path,
        block_time_s: int | None = None,
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        state.parent.mkdir(parents=True, exist_ok=True)
        options = {
            "--host": "127.0.0.1",
            "--port": port,
            "--chain-id": CHAIN_ID,
            "--accounts": 0,
            "--state": state,
            "--state-interval": STATE_INTERVAL_S,
        }
        arguments = [str(word) for option in options.items() for word in option]
        if block_time_s is not None:
            arguments += ["--block-time", str(block_time_s), "--mixed-mining"]
        self.process = ChildProcess(
            "The local chain",
            [anvil, "--quiet", *arguments],
            log=log,
            ready=partial(listens, port),
        )

    def wait_until_ready(self) -> Web3:
        """Wait for its first answer.

        Raises:
            ProcessFailed: It died or took too long.
        """
        self.process.wait_until_ready(timeout_s=START_TIMEOUT_S)
        return connect(self.url)

    def stop(self) -> None:
        """Stop it; its state is saved first."""
        self.process.stop()


def connect(url: str) -> Web3:
    """A client of the local chain."""
    return Web3(HTTPProvider(url, request_kwargs={"timeout": 30}))


def control(web3: Web3, method: str, *params: object) -> None:
    """Call one of anvil's own methods, such as anvil_setBalance.

    Raises:
        PaymentServiceError: anvil refused.
    """
    response = web3.provider.make_request(RPCEndpoint(f"anvil_{method}"), list(params))
    if "error" in response:
        raise PaymentServiceError(f"anvil_{method}: {response['error']}")
