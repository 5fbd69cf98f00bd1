"""What runs in the background begins, is fed, and ends at once when it is told to."""

import asyncio

from test_auditor import Model, World
from test_follower import Service
from worlds import router, world

from tinybrain.routing.online.service import Online


async def test_labels_under_way_are_given_up_when_the_service_ends():
    audits, following = World(upstream=Model(hangs=True)), Service(router(world()))
    online = Online("here", audits.auditor, following.follower)
    online.start()
    audits.offer()
    audits.offer()
    async with asyncio.timeout(30):
        while not (audits.upstream.at_work and online.standing):  # noqa: ASYNC110  # as it runs
            await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        await online.close()
    assert (audits.upstream.at_work, audits.book.kept) == (0, [])
    assert len(asyncio.all_tasks()) == 1


async def test_one_that_was_never_started_ends_too():
    online = Online("here", World().auditor, Service(router(world())).follower)
    await online.close()
