"""Choices that depend on a seed and a name only, not on what else there is or was chosen before."""

import hashlib
from collections.abc import Iterable
from random import Random


def rank(seed: int, name: str) -> int:
    """A number that orders names at random."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8])


def stream(seed: int, name: str) -> Random:
    """Random numbers of its own for each name."""
    return Random(rank(seed, name))


def third(seed: int, names: Iterable[str], total: int) -> set[str]:
    """A third of `total`, chosen among the names; fewer where there are fewer names."""
    return set(sorted(set(names), key=lambda name: rank(seed, name))[: round(total / 3)])
