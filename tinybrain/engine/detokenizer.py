"""Text out of the bytes of tokens, as far as it is certain, up to a stop string.

Knows bytes and characters, no token ids. Work is linear in the length of the answer.
"""

import codecs
from collections.abc import Iterable


class Detokenizer:
    """Decodes UTF-8 incrementally and searches for stop strings.

    A piece never ends inside a character; bytes that no continuation can complete become U+FFFD.
    Text that could still become a stop string is held back. How the bytes are split into pieces
    does not change the text. `stopped` is true once a stop string was found; neither it nor what
    follows is ever given out. Of several stop strings the one that ends first counts. `given`
    counts the characters given out, `decoded` also those held back.
    """

    def __init__(self, stop: Iterable[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = [string for string in stop if string]
        self._held = ""
        self.stopped = False
        self.given = 0

    @property
    def decoded(self) -> int:
        """How many characters are complete so far."""
        return self.given + len(self._held)

    def push(self, piece: bytes) -> str:
        """Take the bytes of the next token; give the text that became certain."""
        return self._feed(self._decoder.decode(piece))

    def finish(self) -> str:
        """Give what was still held back, when no more bytes will come."""
        text = self._feed(self._decoder.decode(b"", final=True)) + self._held
        self.given, self._held = self.decoded, ""
        return text

    def _feed(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        certain = self._stop_start(text)
        if certain is not None:
            self.stopped, self._held = True, ""
        else:
            certain = len(text) - self._stop_prefix_length(text)
            self._held = text[certain:]
        self.given += certain
        return text[:certain]

    def _stop_start(self, text: str) -> int | None:
        found = [(at + len(s), at) for s in self._stop if (at := text.find(s)) >= 0]
        return min(found)[1] if found else None

    def _stop_prefix_length(self, text: str) -> int:
        longest = max((len(s) - 1 for s in self._stop), default=0)
        for length in range(min(longest, len(text)), 0, -1):
            if any(s.startswith(text[-length:]) for s in self._stop):
                return length
        return 0
