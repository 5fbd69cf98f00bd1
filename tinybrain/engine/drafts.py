"""Guesses at how a sequence goes on, taken from what stands in it already.

Knows token ids only. Source: prompt lookup decoding (Saxena 2023).
"""

from collections.abc import Iterable

N_GRAMS = (3, 2)
"""Lengths of the endings that are looked up, the one that says more first."""

LONGEST = 16
"""Tokens proposed at once, at most."""

FIRST = 4
"""Tokens proposed at once before anything is known of how proposals do."""

REST = 16
"""Tokens without a proposal after too many were wrong."""


class Drafts:
    """Proposes how a sequence goes on, and less the less that comes true.

    What comes true lets it propose more, up to LONGEST tokens; after a run of wrong proposals it
    makes none for REST tokens. A token takes constant time.
    """

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self._tokens: list[int] = []
        self._next: dict[tuple[int, ...], int] = {}  # where an n-gram was followed last
        self._most = FIRST
        self._resting = 0
        self._proposed: list[int] = []
        self._begin = 0  # where the proposal stands in the sequence, if it comes true
        for token in tokens:
            self.push(token)

    def push(self, token: int) -> None:
        """Take the sequence's next token, proposed or not."""
        self._resting = max(0, self._resting - 1)
        if self._proposed:
            self._judge(token)
        for length in N_GRAMS:
            self._next[tuple(self._tokens[-length:])] = len(self._tokens)
        self._tokens.append(token)

    def propose(self, most: int) -> list[int]:
        """Up to `most` tokens that may come next; those pushed next tell whether they did.

        They are what followed the latest earlier occurrence of the sequence's last three tokens,
        else of its last two; one that reaches the end is taken to repeat itself.
        """
        self._proposed, self._begin = [], len(self._tokens)
        follows = self._lookup()
        if follows is not None and not self._resting:
            period = self._begin - follows
            count = min(most, self._most)
            self._proposed = [self._tokens[follows + at % period] for at in range(count)]
        return list(self._proposed)

    def _lookup(self) -> int | None:
        endings = (tuple(self._tokens[-length:]) for length in N_GRAMS)
        return next((self._next[ending] for ending in endings if ending in self._next), None)

    def _judge(self, token: int) -> None:
        came_true = len(self._tokens) - self._begin
        if token != self._proposed[came_true]:
            self._proposed = []
            self._most = (self._most + came_true) // 2
            if not self._most:
                self._most, self._resting = 1, REST
        elif came_true + 1 == len(self._proposed):
            self._proposed = []
            self._most = min(2 * self._most, LONGEST)
