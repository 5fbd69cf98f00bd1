"""One fault a round: what is hit, how and when. Whatever is hit is healed again."""

import asyncio
import os
import signal
from dataclasses import dataclass
from functools import partial

LATEST_S = 4.0  # callers are under way then
DOWN_S = (0.2, 2.0)
PAUSE_S = (1.0, 6.0)
REPLICAS = {
    "an ingress": "PaymentIngress",
    "settlement": "Settlement",
    "tinychat": "TinyChat",
    "escalation": "Escalation",
}


@dataclass(frozen=True)
class Fault:
    """What is done to whom, `at_s` after the load began, for `lasts_s`."""

    deed: str  # "kill -9" or "pause"
    target: str
    at_s: float
    lasts_s: float
    which: float  # of several replicas, 0 to 1

    def __str__(self):
        return f"{self.deed} of {self.target} after {self.at_s:.2f} s for {self.lasts_s:.2f} s"


def choose(rng, *, database):
    """Any fault that a world with this database can have."""
    targets = [*REPLICAS, "chain", "facilitator", "upstream"]
    if database == "postgresql":
        targets += ["database"] * 2
    deed = rng.choice(["kill -9", "kill -9", "pause"])
    low, high = DOWN_S if deed == "kill -9" else PAUSE_S
    return Fault(
        deed,
        rng.choice(targets),
        at_s=rng.uniform(0, LATEST_S),
        lasts_s=rng.uniform(low, high),
        which=rng.random(),
    )


async def strike(world, fault):
    """Wait for the moment, do it, and undo it."""
    await asyncio.sleep(fault.at_s)
    if fault.deed == "pause":
        await _pause(world, fault)
    elif fault.target in REPLICAS:
        os.kill(_pid(world, fault), signal.SIGKILL)  # Serve starts another
    else:
        await getattr(world, f"crash_{fault.target}")(fault.lasts_s)


async def _pause(world, fault):
    if fault.target == "database":
        pause, resume = world.postgres.pause, world.postgres.resume
    else:
        pid = _pid(world, fault)
        pause = partial(os.kill, pid, signal.SIGSTOP)
        resume = partial(os.kill, pid, signal.SIGCONT)
    pause()
    try:
        await asyncio.sleep(fault.lasts_s)
    finally:
        resume()


def _pid(world, fault):
    if fault.target not in REPLICAS:
        return getattr(world, fault.target).pid
    pids = sorted(world.replicas(REPLICAS[fault.target]))
    return pids[int(fault.which * len(pids))]
