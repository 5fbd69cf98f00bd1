"""JSON lines as text: which lines there are. Knows nothing of what they hold."""

from collections.abc import Iterator


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, with their numbers from 1.

    Only line feeds end them: str.splitlines also splits at what may stand inside a JSON string.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line
