"""A book in memory, with the faults of a real one."""

from tinybrain.errors import LedgerUnavailable


class MemoryBook:
    """Keeps what it is told; `fails` makes it unavailable."""

    def __init__(self):
        self.kept = []
        self.decided = []
        self.spend = 0
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

    async def audit_spend(self):
        self._check()
        return self.spend

    def _check(self):
        if self.fails:
            raise LedgerUnavailable("locked")
