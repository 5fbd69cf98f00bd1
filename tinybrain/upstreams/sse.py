"""Server-sent events, decoded as they arrive: bytes in, data of whole events out.

Follows the event stream format of the HTML standard for `data` fields; other fields and
comments are read over. Knows nothing of what the data means.
"""

from collections.abc import Iterator

from tinybrain.errors import UpstreamError

MAX_LINE_BYTES = 1_000_000
BOM = b"\xef\xbb\xbf"


class SseDecoder:
    """Splits a stream into events, however its bytes are cut into chunks."""

    def __init__(self, *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._buffer = bytearray()
        self._data: list[str] = []
        self._at_start = True

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Yield the data of every event that `chunk` completes.

        Raises:
            UpstreamError: A line is longer than `max_line_bytes`.
        """
        self._buffer += chunk
        if b"\n" in chunk or b"\r" in chunk:
            lines = self._buffer.splitlines(keepends=True)
            # A carriage return at the very end may be the first half of a line end.
            self._buffer = bytearray() if lines[-1].endswith(b"\n") else lines.pop()
            for line in lines:
                yield from self._read(line)
        self._check_length(self._buffer)

    def close(self) -> Iterator[str]:
        """Yield the last event where the stream ended without the empty line after it."""
        last, self._buffer = self._buffer, bytearray()
        yield from self._read(last)
        yield from self._dispatch()

    def _read(self, line: bytes | bytearray) -> Iterator[str]:
        self._check_length(line)
        line = line.rstrip(b"\r\n")
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(BOM)
        if not line:
            yield from self._dispatch()
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" ").decode(errors="replace"))

    def _dispatch(self) -> Iterator[str]:
        if self._data:
            data, self._data = "\n".join(self._data), []
            yield data

    def _check_length(self, line: bytes | bytearray) -> None:
        if len(line) > self._max_line_bytes:
            raise UpstreamError(f"The server sent a line of over {self._max_line_bytes} bytes.")
