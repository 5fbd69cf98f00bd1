"""Continuous batching: one thread that reads prompts in turns and decodes requests together.

Knows token ids only. Everything that touches the model happens in the engine's own thread;
`submit`, `abort` and `close` may be called from any other.
"""

import threading
from collections import deque
from collections.abc import Sequence

import torch

from tinybrain.engine.model import Model
from tinybrain.engine.request import Completed, EngineEvent, Failed, Request, SampledToken
from tinybrain.engine.runner import Runner
from tinybrain.engine.running import Running
from tinybrain.errors import Busy, InvalidRequest, LocalModelError


class Engine:
    """Runs up to `slots` requests at once; up to `max_waiting` more may wait.

    Prompts are read in chunks of at most `prefill_chunk` tokens; while others are being decoded,
    one between two decode steps, and smaller ones where the model allows. A decode step computes
    one row for each request, and where these are fewer than `speculative_rows`, up to that many
    with tokens that may follow; 0 turns this off. Steps that are `pipelined` (see `pipeline.py`)
    are for GPUs, where they are the default; they guess at no tokens.
    """

    def __init__(
        self,
        model: Model,
        *,
        slots: int,
        max_waiting: int = 64,
        prefill_chunk: int = 256,
        speculative_rows: int = 8,
        pipelined: bool | None = None,
    ) -> None:
        self._runner = Runner(
            model,
            slots=slots,
            chunk=prefill_chunk,
            speculative_rows=speculative_rows,
            pipelined=model.device.type == "cuda" if pipelined is None else pipelined,
        )
        self._capacity = slots + max_waiting
        self._waiting: deque[Request] = deque()
        self._running: list[Running] = []  # those reading their prompts in the order of turns
        self._live: set[Request] = set()  # submitted, and neither ended nor aborted
        self._closed = False
        self._work = threading.Condition()  # guards all of the above but `_running`
        self._thread = threading.Thread(target=self._run, name="tinychat-engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether requests can still be answered."""
        return self._thread.is_alive()

    @property
    def free_slots(self) -> int:
        """How many more requests can run at once."""
        return self._runner.free_slots

    @property
    def requests(self) -> int:
        """Requests running or waiting."""
        return len(self._live)

    def submit(self, request: Request) -> None:
        """Queue a request; its `emit` tells what becomes of it.

        Raises:
            Busy: As many requests wait as may.
            InvalidRequest: The prompt is empty, or leaves no room in the context for an answer.
            LocalModelError: The engine has ended.
        """
        if not 0 < len(request.prompt) < self._runner.context_length:
            raise InvalidRequest(
                f"A prompt has 1 to {self._runner.context_length - 1} tokens, "
                f"not {len(request.prompt)}."
            )
        with self._work:
            if self._closed:
                raise LocalModelError("The engine has ended.")
            if len(self._live) >= self._capacity:
                raise Busy("TinyChat is answering as many requests as it can; try again.")
            self._live.add(request)
            self._waiting.append(request)
            self._work.notify()

    def abort(self, request: Request) -> None:
        """End a request before the next step; nothing if it has ended already."""
        with self._work:
            self._live.discard(request)

    def close(self) -> None:
        """Fail what is unfinished, end the thread and wait for it."""
        with self._work:
            self._closed = True
            self._work.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                self._runner.prepare()
                while self._await_work():
                    self._drop_aborted()
                    self._admit_one()
                    self._prefill_chunk()
                    self._decode_all()
        finally:
            self._fail_the_rest()

    def _await_work(self) -> bool:
        with self._work:
            self._work.wait_for(lambda: self._closed or self._waiting or self._running)
            return not self._closed

    def _drop_aborted(self) -> None:
        with self._work:
            self._waiting = deque(r for r in self._waiting if r in self._live)
            aborted = [r for r in self._running if r.request not in self._live]
        for running in aborted:
            self._leave(running)

    def _admit_one(self) -> None:
        with self._work:
            if not self._waiting or not self._runner.free_slots:
                return
            request = self._waiting.popleft()
        try:
            self._running.append(self._runner.start(request))
        except Exception as error:  # noqa: BLE001  # told to the one who asked; the thread lives on
            self._end(request, Failed(error))

    def _prefill_chunk(self) -> None:
        # One chunk a step: those being decoded wait for no more than that between two tokens.
        reading = [running for running in self._running if running.is_reading]
        if not reading:
            return
        running, beside = reading[0], len(reading) < len(self._running)
        try:
            token = self._runner.prefill(running, beside=beside)
        except Exception as error:  # noqa: BLE001  # as above
            self._fail(running, error)
            return
        if token is None:
            self._running.remove(running)
            self._running.append(running)
            return
        self._tell(running.request, running.prompt_read)
        self._go_on(running, [token])

    def _decode_all(self) -> None:
        decoding = (running for running in self._running if not running.is_reading)
        batch = sorted(decoding, key=lambda running: running.slot.index)
        if not batch:
            return
        try:
            tokens = self._runner.decode(batch)
        except Exception as error:  # noqa: BLE001  # as above
            for running in batch:
                self._fail(running, error)
            return
        for running, chosen in zip(batch, tokens, strict=True):
            self._go_on(running, chosen)

    def _go_on(self, running: Running, chosen: Sequence[SampledToken]) -> None:
        for token in chosen:
            self._tell(running.request, token)
        if running.error:
            self._fail(running, running.error)
        elif reason := running.finish_reason:
            self._leave(running)
            self._end(running.request, Completed(reason))

    def _leave(self, running: Running) -> None:
        self._running.remove(running)
        self._runner.release(running)

    def _fail(self, running: Running, error: Exception) -> None:
        self._running.remove(running)
        self._runner.discard(running)
        self._end(running.request, Failed(error))

    def _end(self, request: Request, event: Completed | Failed) -> None:
        self.abort(request)
        self._tell(request, event)

    def _tell(self, request: Request, event: EngineEvent) -> None:
        try:
            request.emit(event)
        except Exception:  # noqa: BLE001  # the listener is gone, for example its event loop closed
            self.abort(request)

    def _fail_the_rest(self) -> None:
        with self._work:
            self._closed = True
            rest = list(self._live)
        for request in rest:
            self._end(request, Failed(LocalModelError("The engine has ended.")))
