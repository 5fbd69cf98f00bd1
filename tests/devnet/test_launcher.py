"""The launcher: one command starts all, Ctrl-C leaves nothing, failures explain themselves."""

import os
import signal
import subprocess
import sys
import time
from itertools import takewhile
from pathlib import Path

import pytest

from tinybrain.devnet.processes import claim_port, listens

pytestmark = [pytest.mark.chain, pytest.mark.timeout(400)]  # it starts whole devnets

PATIENCE_S = 150  # for a start or an end, on a machine that does other things meanwhile
MARK = "LAUNCHED_BY_TEST"
LAUNCH = """
import sys
from pathlib import Path
from tinybrain.devnet.launcher import run
from tinybrain.devnet.world import Ports
home, tools, port, *command = sys.argv[1:]
sys.exit(run(Path(home), ports=Ports(0, 0, 0), http_port=int(port), command=command,
             tools_folder=Path(tools)))
"""
# Serves /health, and has a child in a session of its own, as Ray has many.
APP = """
import http.server, os, subprocess, sys
subprocess.Popen(["sleep", "1000"], start_new_session=True)
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
print({name: value for name, value in os.environ.items() if name.startswith("TINYBRAIN_")})
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
"""


@pytest.fixture
def port():
    return claim_port(0, what="a test", option="")


@pytest.fixture
def launch(tmp_path, devnet_tools, port):
    """Starts the launcher with a stand-in for the application."""
    running = []

    def start(app=APP):
        command = [sys.executable, "-c", app, str(port)]
        arguments = [str(tmp_path), str(devnet_tools.folder), str(port), *command]
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, MARK: str(tmp_path)},
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def running_under(home, launcher):
    """Processes that inherited the launcher's mark, however they descend from it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"{MARK}={home}".encode() in (folder / "environ").read_bytes()
        except OSError:
            continue  # it ended, or is a zombie
        if marked and int(folder.name) != launcher.pid:
            found.append(int(folder.name))
    return found


def test_it_starts_all_tells_where_and_leaves_nothing(launch, port, tmp_path):
    launcher = launch()
    told = "".join(takewhile(lambda line: not line.startswith("Try: "), launcher.stderr))
    started = running_under(tmp_path, launcher)
    launcher.send_signal(signal.SIGINT)
    launcher.communicate(timeout=PATIENCE_S)
    assert launcher.returncode == 0
    assert len(started) >= 5  # chain, facilitator, upstream, application and its child
    assert running_under(tmp_path, launcher) == []
    assert f"http://127.0.0.1:{port}" in told
    settings = (tmp_path / "devnet" / "app.log").read_text()
    assert "'TINYBRAIN_NETWORK': 'eip155:84532'" in settings


def test_even_kill_9_leaves_nothing_of_the_devnet(launch, port, tmp_path):
    launcher = launch(
        app=APP.replace('subprocess.Popen(["sleep", "1000"]', "(lambda *_, **__: 0)(0")
    )
    wait_for(lambda: listens(port))
    launcher.kill()
    launcher.communicate(timeout=PATIENCE_S)
    wait_for(lambda: running_under(tmp_path, launcher) == [])


def test_a_child_that_dies_is_explained_and_all_is_stopped(launch, tmp_path):
    launcher = launch(app="import time; time.sleep(1); raise SystemExit('the roof is on fire')")
    told = launcher.communicate(timeout=PATIENCE_S)[1]
    assert launcher.returncode == 1
    assert "the roof is on fire" in told
    assert running_under(tmp_path, launcher) == []


def test_a_port_in_use_is_named_before_anything_starts(launch, tmp_path, port):
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as other:
        wait_for(lambda: listens(port))
        launcher = launch()
        told = launcher.communicate(timeout=PATIENCE_S)[1]
        other.terminate()
    assert launcher.returncode == 1
    assert f"Port {port} is in use" in told
    assert "--port" in told
    assert not (tmp_path / "devnet").exists()
