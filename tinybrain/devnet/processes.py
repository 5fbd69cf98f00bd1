"""Child processes that are waited for, explained when they die, and never left behind."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx

from tinybrain.errors import ConfigError, TinyBrainError

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36
LOG_TAIL_LINES = 15
POLL_S = 0.05


class ProcessFailed(TinyBrainError):
    """A process of the devnet died or did not get ready; the message ends with its log's tail."""

    default_code = "process_failed"


class ChildProcess:
    """A process in its own session that logs to a file; `ready` is `listens` or `answers`.

    On Linux it gets SIGTERM when the thread that made it dies, even by kill -9: make it from the
    main thread.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._ready = ready
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603  # commands of our own
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                preexec_fn=_die_with_parent(),  # noqa: PLW1509  # one prctl, looked up before
            )

    @property
    def pid(self) -> int:
        """The process's id; also its group's and session's."""
        return self._process.pid

    def require_alive(self) -> None:
        """Raise ProcessFailed if it ended."""
        if (code := self._process.poll()) is not None:
            raise self._failed(f"ended with exit code {code}")

    def wait_until_ready(self, *, timeout_s: float) -> None:
        """Wait until `ready` says so.

        Raises:
            ProcessFailed: It died first, or time ran out.
        """
        deadline = time.monotonic() + timeout_s
        while not self._ready():
            self.require_alive()
            if time.monotonic() > deadline:
                raise self._failed(f"was not ready within {timeout_s:.0f} s")
            time.sleep(POLL_S)
        self.require_alive()  # else it was another program that is ready there

    def stop(self, *, grace_s: float = 10) -> None:
        """Ask it to end (SIGTERM), then end its whole group."""
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        _signal_group(self.pid, signal.SIGKILL)
        self._process.wait()

    def _failed(self, what: str) -> ProcessFailed:
        tail = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return ProcessFailed("\n".join([f"{self.name} {what}. The end of {self.log}:", *tail]))


def claim_port(port: int, *, what: str, option: str) -> int:
    """The port to listen on at 127.0.0.1; 0 finds a free one.

    Raises:
        ConfigError: Something listens there already.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ConfigError(
                f"Port {port} is in use, and {what} needs it. Stop what listens there, or choose "
                f"another port with {option}."
            ) from None
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether something accepts connections at 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(url: str) -> bool:
    """Whether a GET of `url` is answered with 2xx."""
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants(*, grace_s: float = 5) -> None:
    """End whatever still descends from this process (Linux only; see `adopt_orphans`)."""
    deadline = time.monotonic() + grace_s
    while descendants := _descendants(os.getpid()):
        forced = time.monotonic() > deadline
        for pid in descendants:
            _signal(pid, signal.SIGKILL if forced else signal.SIGTERM)
        time.sleep(POLL_S)
        _reap()


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def ask_for_sigterm() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask_for_sigterm


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task")
    found: list[int] = []
    for listing in children.glob("*/children"):
        try:
            direct = [int(child) for child in listing.read_text().split()]
        except OSError:
            continue  # that thread ended meanwhile
        for child in direct:
            found += [child, *_descendants(child)]
    return found


def _reap() -> None:
    with suppress(ChildProcessError):  # none is left
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS: a group of zombies
        os.killpg(group, number)
