"""What a CUDA device needs so that the host neither launches much nor waits: graphs, late reads.

Everything here runs on a CPU too, where it does nothing special.
"""

import logging
import time
from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[], object]

WARM_UP = 3
"""Runs before a capture, in which libraries allocate what they keep."""

log = logging.getLogger(__name__)


class Graphs:
    """Captures steps that work on tensors which stay where they are, and share memory otherwise.

    On a CPU, and where a step cannot be captured, it is called as it is.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if self._on_gpu else None

    def capture(self, step: Step) -> Step:
        """What does the same as a step, which is run some times now."""
        if not self._on_gpu:
            return step
        _warm_up(step)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads of the process may go on with the device.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                step()
        except RuntimeError as error:
            log.warning("A decode step runs without a CUDA graph, and slowly: %s", error)
            return step
        return graph.replay

    def milliseconds(self, step: Step, *, rounds: int = 20) -> float:
        """What a step takes, without the host's part in it where that can be had apart."""
        step()
        if not self._on_gpu:
            start = time.perf_counter()
            _repeat(step, rounds)
            return (time.perf_counter() - start) * 1000 / rounds
        begin, end = _event(enable_timing=True), _event(enable_timing=True)
        begin.record()
        _repeat(step, rounds)
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / rounds


def _repeat(step: Step, times: int) -> None:
    for _ in range(times):
        step()


def _warm_up(step: Step) -> None:
    # Apart from the current stream, as torch's documentation of graphs wants it.
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        _repeat(step, WARM_UP)
    torch.cuda.current_stream().wait_stream(stream)


def _event(**options: bool) -> torch.cuda.Event:
    return torch.cuda.Event(**options)  # type: ignore[no-untyped-call]  # torch's


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on a device, without waiting for what that is doing."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Told:
    """A tensor's numbers as they are after all that was asked of the device until now."""

    def __init__(self, tensor: Tensor) -> None:
        self._numbers = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        self._numbers.copy_(tensor, non_blocking=True)
        self._copied = _event() if tensor.is_cuda else None
        if self._copied:
            self._copied.record()

    def read(self) -> list[list[float]]:
        """The numbers; waits for them, and for nothing that was asked later."""
        if self._copied:
            self._copied.synchronize()
        numbers: list[list[float]] = self._numbers.tolist()
        return numbers
