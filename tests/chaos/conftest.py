"""One world at a time: Ray and its replicas need both cores of a small machine."""

import pytest

from tests.chaos.world import World


@pytest.fixture(scope="module")
def worlds(devnet_tools, tmp_path_factory):
    """Gives the running world with a kind of database, or replaces it; `fresh` always does."""
    running = []

    def world(database=None, *, fresh=False):
        if running and not fresh and database in (None, running[0].database):
            return running[0]
        if running:
            running.pop().stop()
        home = tmp_path_factory.mktemp("world")
        running.append(World(home, devnet_tools, database=database or "sqlite").start())
        return running[0]

    yield world
    if running:
        running.pop().stop()


@pytest.fixture
def world(worlds):
    """Whichever world runs."""
    return worlds()
