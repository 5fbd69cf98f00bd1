"""`make run`: the devnet and the application on one machine, until Ctrl-C, with nothing left over.

The application is whatever command serves it; by default Ray Serve's, as a subprocess.
"""

import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import yaml  # type: ignore[import-untyped]  # it ships no types
from rich.console import Console

from tinybrain.config import SERVE_ENVIRONMENT, load_settings
from tinybrain.devnet.chain import NETWORK
from tinybrain.devnet.processes import (
    ChildProcess,
    adopt_orphans,
    answers,
    claim_port,
    end_descendants,
)
from tinybrain.devnet.upstream import ALIAS, PRICE
from tinybrain.devnet.world import DEFAULT_PORTS, Devnet, Ports
from tinybrain.errors import ConfigError, TinyBrainError
from tinybrain.usdc import format_usdc

SERVE_CONFIG = Path("serve_config.yaml")
DEFAULT_HTTP_PORT = 8000
START_TIMEOUT_S = 300
STOP_GRACE_S = 20
WATCH_S = 0.5


def run(
    home: Path,
    *,
    ports: Ports = DEFAULT_PORTS,
    http_port: int = DEFAULT_HTTP_PORT,
    command: Sequence[str] | None = None,
    tools_folder: Path | None = None,
) -> int:
    """Start everything, wait for Ctrl-C or SIGTERM, stop everything.

    `command` serves the application at `http_port`; None runs Ray Serve with serve_config.yaml.
    Call it from the main thread of a process of its own: every descendant is ended with it.

    Returns:
        The exit code: 0 when asked to stop, 1 when something could not start or died.
    """
    console = Console(stderr=True, highlight=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    adopt_orphans()
    try:
        with ExitStack() as stack:
            stack.callback(end_descendants)
            http_port = claim_port(http_port, what="the application", option="--port")
            report = partial(console.print, style="dim", markup=False)
            devnet = Devnet(home, ports=ports, tools_folder=tools_folder, report=report)
            stack.callback(devnet.stop)
            devnet.start()
            app = _start_app(devnet, http_port, command)
            stack.callback(app.stop, grace_s=STOP_GRACE_S)
            report("Starting the application")
            app.wait_until_ready(timeout_s=START_TIMEOUT_S)
            console.print(_banner(devnet, http_port), markup=False, soft_wrap=True)
            _watch([*devnet.processes, app])
    except KeyboardInterrupt:
        console.print("Stopped; the next start finds everything as it was.", style="dim")
        return 0
    except TinyBrainError as error:
        console.print(error.message, style="red", markup=False)
        return 1


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # stopping takes a moment; impatience must not cut it
    raise KeyboardInterrupt


def _start_app(devnet: Devnet, http_port: int, command: Sequence[str] | None) -> ChildProcess:
    url = f"http://127.0.0.1:{http_port}"
    return ChildProcess(
        "The application",
        command or _serve_command(devnet, http_port),
        log=devnet.folder / "app.log",
        ready=partial(answers, f"{url}/health"),
        environment={
            **devnet.environment(),
            **SERVE_ENVIRONMENT,
        },
    )


def _serve_command(devnet: Devnet, http_port: int) -> list[str]:
    """Ray Serve's command, with the port and the devnet's settings in a copy of its configuration.

    As arguments they win over the user's own `.env`, which may name a real network's keys.
    """
    if not SERVE_CONFIG.exists():
        raise ConfigError(f"{SERVE_CONFIG} is missing here: start from the folder that has it.")
    config: dict[str, Any] = yaml.safe_load(SERVE_CONFIG.read_text())
    config.setdefault("http_options", {})["port"] = http_port
    names = {
        name.removeprefix("TINYBRAIN_").lower(): value
        for name, value in devnet.environment().items()
    }
    (application,) = config["applications"]
    application["args"] = names | {
        "public_url": f"http://127.0.0.1:{http_port}",
        "upstream_api_key": None,
    }
    copy = devnet.folder / SERVE_CONFIG.name
    copy.touch(mode=0o600)  # it holds the throwaway keys
    copy.write_text(yaml.safe_dump(config))
    return [sys.executable, "-m", "ray.serve.scripts", "run", str(copy)]


def _watch(processes: Sequence[ChildProcess]) -> NoReturn:
    while True:
        for process in processes:
            process.require_alive()
        time.sleep(WATCH_S)


def _banner(devnet: Devnet, http_port: int) -> str:
    options = "" if http_port == DEFAULT_HTTP_PORT else f" --url http://127.0.0.1:{http_port}"
    return "\n".join(
        [
            f"TinyBrain answers at http://127.0.0.1:{http_port}",
            f"  model     TinyChat; what it does not know, {ALIAS} (here SmolLM2-135M)",
            f"  price     {format_usdc(load_settings().price)} of USDC an answer",
            f"  network   {NETWORK}, a local chain with play money at {devnet.rpc_url}",
            f"  payTo     {devnet.wallets.treasury.address}",
            f"  upstream  {devnet.upstream_url}, {format_usdc(PRICE)} a call",
            f"  logs      {devnet.folder}",
            f'Try: {_command()} ask "Hello, who are you?"{options}',
        ]
    )


def _command() -> str:
    """How `tinybrain` is called from this folder, where the environment is not activated."""
    program = Path(sys.executable).with_name("tinybrain")
    with suppress(ValueError):
        return str(program.relative_to(Path.cwd()))
    return str(program)
