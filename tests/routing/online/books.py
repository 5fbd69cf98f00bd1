"""A book in memory, with the faults of a real one."""

from tinybrain.errors import LedgerUnavailable
from tinybrain.payments.records import Spending

NOTHING = Spending(total=0, audits=0, doubted=0, others=0, doubts=0, judged=0, seconds=0.0)


class MemoryBook:
    """Keeps what it is told; `fails` makes it unavailable."""

    def __init__(self):
        self.kept = []
        self.decided = []
        self.spent = NOTHING
        self.fails = False

    async def record(self, label):
        self._check()
        self.kept.append(label)

    async def labels(self, checkpoint, *, limit):
        self._check()
        return [label for label in self.kept if label.checkpoint == checkpoint][-limit:]

    async def judged(self, checkpoint, *, limit):
        self._check()
        return self.decided[-limit:]

    async def spending(self, checkpoint):
        self._check()
        return self.spent

    def _check(self):
        if self.fails:
            raise LedgerUnavailable("locked")
