"""One world at a time: Ray and its replicas need both cores of a small machine."""

import pytest

from tests.chaos.world import LONG_TIMES, SHORT_TIMES, World


@pytest.fixture(scope="module")
def worlds(devnet_tools, tmp_path_factory):
    """Gives the running world with a kind of database, or replaces it; `fresh` always does."""
    running = []

    def world(database=None, *, fresh=False, times=SHORT_TIMES):
        suits = running and database in (None, running[0].database) and running[0].times == times
        if suits and not fresh:
            return running[0]
        if running:
            running.pop().stop()
        home = tmp_path_factory.mktemp("world")
        chosen = World(home, devnet_tools, database=database or "sqlite", times=times)
        running.append(chosen.start())
        return running[0]

    yield world
    if running:
        running.pop().stop()


@pytest.fixture
def world(worlds):
    """One world for a module that kills nothing, with time for all."""
    return worlds(times=LONG_TIMES)
