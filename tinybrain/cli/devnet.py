"""`tinybrain devnet`: the local world and the service, until Ctrl-C."""

from pathlib import Path

from tinybrain.devnet.launcher import run
from tinybrain.devnet.world import Ports


def start(
    home: Path, *, port: int, chain_port: int, facilitator_port: int, upstream_port: int
) -> int:
    """Run it; returns the exit code."""
    ports = Ports(chain=chain_port, facilitator=facilitator_port, upstream=upstream_port)
    return run(home, ports=ports, http_port=port)
