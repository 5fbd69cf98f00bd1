"""Tells reasoning from answer where a model writes `<think>…</think>` into its text."""

from collections.abc import Iterator

from tinybrain.chat import Text, Thought

OPENING = "<think>"
CLOSING = "</think>"


class ThinkSplitter:
    """Splits text that arrives in pieces; a tag may be cut anywhere."""

    def __init__(self) -> None:
        self._thinking = False
        self._held = ""

    def feed(self, piece: str) -> Iterator[Text | Thought]:
        """Yield what is known to be answer or reasoning, and keep what may become a tag."""
        self._held += piece
        while True:
            before, tag, after = self._held.partition(CLOSING if self._thinking else OPENING)
            if not tag:
                break
            yield from self._labelled(before)
            self._thinking = not self._thinking
            self._held = after
        kept = _length_of_cut_tag(self._held, CLOSING if self._thinking else OPENING)
        known, self._held = self._held[: len(self._held) - kept], self._held[-kept:] * bool(kept)
        yield from self._labelled(known)

    def close(self) -> Iterator[Text | Thought]:
        """Yield what was kept; no tag came of it."""
        kept, self._held = self._held, ""
        yield from self._labelled(kept)

    def _labelled(self, text: str) -> Iterator[Text | Thought]:
        if text:
            yield Thought(text) if self._thinking else Text(text)


def _length_of_cut_tag(text: str, tag: str) -> int:
    return next((n for n in range(len(tag) - 1, 0, -1) if text.endswith(tag[:n])), 0)
