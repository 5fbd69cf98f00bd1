"""`tinybrain serve`: Ray Serve's own command, once the settings are known to be good.

Ray finds a wrong setting too, but tells of it inside a traceback and goes on waiting.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

from tinybrain.config import SERVE_ENVIRONMENT, load_settings
from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.assembly import open_gate


def serve_forever(config: Path) -> NoReturn:
    """Become `serve run`; what the environment says of Ray wins over our defaults.

    Raises:
        ConfigError: A setting is missing or wrong, the gate would not work, or there is no such
            file.
    """
    if not config.exists():
        raise ConfigError(f"{config} does not exist. Name Ray Serve's configuration file.")
    open_gate(load_settings().require_serving())
    command = [sys.executable, "-m", "ray.serve.scripts", "run", str(config)]
    os.execve(sys.executable, command, SERVE_ENVIRONMENT | os.environ)  # noqa: S606  # our own interpreter
