"""Which cache slots are held, and which tokens are known in each, so that a prompt reuses prefixes.

Knows no tensors: that a slot's keys and values are what is written down here is the runner's part.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Slot:
    """A slot's place in the cache, and the tokens known in it.

    The cache has the keys and values of all `tokens` but the last. `nll` has each token's negative
    log-likelihood in nats; the first token, which nothing predicts, has 0.
    """

    index: int
    tokens: list[int] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)

    def extend(self, tokens: Sequence[int], nll: Sequence[float]) -> None:
        """Note tokens that follow; the keys and values of those before them are in the cache."""
        self.tokens.extend(tokens)
        self.nll.extend(nll)

    def cut(self, length: int) -> None:
        """Keep only the first tokens."""
        del self.tokens[length:], self.nll[length:]


class Slots:
    """A fixed number of slots.

    What an ended request leaves in its slot is kept for reuse until the slot is needed: the one
    left longest ago goes first.
    """

    def __init__(self, count: int) -> None:
        self._held: list[Slot] = []
        self._left = [Slot(index) for index in range(count)]  # in the order they were left

    @property
    def free(self) -> int:
        """How many slots nobody holds."""
        return len(self._left)

    def acquire(self, prompt: Sequence[int]) -> Slot:
        """Take the slot with the longest beginning of a prompt and nothing else that would be lost.

        Without such a one, an empty slot; else the slot left longest ago. The slot keeps the tokens
        it has in common with the prompt, whose first token it knows in any case.

        Raises:
            ValueError: No slot is free.
        """

        def kept(slot: Slot) -> int:
            known = len(slot.tokens)
            return known if slot.tokens == list(prompt[:known]) else -1

        slot = max(self._left, key=kept)
        self._left.remove(slot)
        self._held.append(slot)
        slot.cut(common_prefix(slot.tokens, prompt))
        if not slot.tokens:
            slot.extend(prompt[:1], [0.0])
        return slot

    def longest_prefix(self, prompt: Sequence[int], *, known: int) -> tuple[Slot | None, int]:
        """The slot, held or not, with the longest beginning of a prompt, and its length in tokens.

        None where no slot has more than the first `known` of them.
        """
        longest = None
        for slot in (*self._held, *self._left):
            # One that has more has the next token: a glance at it spares most comparisons.
            if slot.tokens[known : known + 1] == list(prompt[known : known + 1]):
                shared = common_prefix(slot.tokens, prompt)
                if shared > known:
                    longest, known = slot, shared
        return longest, known

    def release(self, slot: Slot) -> None:
        """Leave a slot with what is known in it."""
        self._held.remove(slot)
        self._left.append(slot)

    def discard(self, slot: Slot) -> None:
        """Leave a slot empty; it is the next to be taken."""
        self._held.remove(slot)
        slot.cut(0)
        self._left.insert(0, slot)


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common from their first on."""
    shared = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        shared += 1
    return shared
