"""Keeps the gate at its target while the service runs, and tells when its questions change."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tinybrain.errors import ConfigError, TinyBrainError
from tinybrain.payments.records import Judged, Label, Spending
from tinybrain.routing.gate import Gate
from tinybrain.routing.online.book import Book
from tinybrain.routing.online.drift import LIMIT
from tinybrain.routing.online.tuning import NEWEST, Service, Tuner
from tinybrain.telemetry.metrics import Metrics
from tinybrain.usdc import format_usdc

PERIOD_S = 300.0
TOLD_FROM = 0.01
"""A threshold that moved by less is not worth a word."""

logger = logging.getLogger(__name__)


class Follower:
    """Reads the book every `period_s` seconds and hands `adopt` the gate that follows from it."""

    def __init__(
        self,
        tuner: Tuner,
        *,
        book: Book,
        adopt: Callable[[Gate], object],
        metrics: Metrics,
        period_s: float = PERIOD_S,
    ) -> None:
        self._tuner = tuner
        self._book = book
        self._adopt = adopt
        self._metrics = metrics
        self._period_s = period_s
        self._on_target = self._gate = self._told = tuner.start
        self._refused = self._drifted = self._is_paced = self._warned = False
        self.standing: dict[str, Any] = {}  # what /stats tells; empty before the first look

    async def run(self) -> None:
        """Look at once and then again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except (TinyBrainError, ValueError) as error:  # ValueError: rows of another version
                logger.warning("The gate is not brought up to date: %s", error)
            except Exception:
                logger.exception("The gate is not brought up to date.")
            await asyncio.sleep(self._period_s)

    async def look(self) -> None:
        """Bring the gate and what is told of it up to date.

        Raises:
            LedgerUnavailable: The book cannot be read; the gate stays as it is.
        """
        checkpoint = self._tuner.router.checkpoint
        judged = await self._book.judged(checkpoint, limit=NEWEST)
        labels = await self._book.labels(checkpoint, limit=NEWEST)
        spending = await self._book.spending(checkpoint)
        # Streams go on meanwhile: full windows take some tenths of a second.
        await asyncio.to_thread(self._tune, judged, labels, spending)
        service = await asyncio.to_thread(self._tuner.service, judged)
        self._adopt(self._gate)
        self._tell_move()
        self._tell_pace()
        self._tell_drift(service.drift)
        self._tell(service, labels, spending)

    def _tune(self, judged: Sequence[Judged], labels: Sequence[Label], spending: Spending) -> None:
        try:
            self._on_target = self._tuner.gate(judged, labels)
        except ConfigError as error:
            if not self._refused:
                logger.warning("The gate stays as it is, on %d labels: %s", len(labels), error)
            self._refused = True
        else:
            self._refused = False
        self._gate = self._tuner.paced(self._on_target, judged, spending)

    def _tell_move(self) -> None:
        before, now = self._told.opening.max_p_wrong, self._gate.opening.max_p_wrong
        if abs(now - before) >= TOLD_FROM:
            logger.info("The gate's threshold on P(wrong) moved from %.3f to %.3f.", before, now)
            self._told = self._gate

    def _tell_pace(self) -> None:
        aim, now = self._on_target.opening.max_p_wrong, self._gate.opening.max_p_wrong
        self._is_paced = now > aim
        if now - aim >= TOLD_FROM and not self._warned:
            self._warned = True
            logger.warning(
                "Answers are kept up to a P(wrong) of %.3f instead of %.3f: more are in doubt than "
                "%s a day pay for, the least of TINYBRAIN_MAX_COST_PER_DAY, "
                "TINYBRAIN_MAX_COST_PER_PROVIDER and 24 times TINYBRAIN_MAX_COST_PER_HOUR. Those "
                "most in doubt come first. Raise it, or expect more wrong answers.",
                now,
                aim,
                format_usdc(self._tuner.budget),
            )
        self._warned &= self._is_paced

    def _tell_drift(self, drift: float | None) -> None:
        drifted = drift is not None and drift > LIMIT
        if drifted and not self._drifted:
            logger.warning(
                "The questions are no longer like those the gate was calibrated on: the "
                "stability index of P(wrong) is %.2f, above %.2f. Look at the labels in /stats, "
                "and calibrate again with questions like those that are asked.",
                drift,
                LIMIT,
            )
        self._drifted = drifted

    def _tell(self, service: Service, labels: Sequence[Label], spending: Spending) -> None:
        target = self._tuner.target
        kind = "escalation_rate" if target.escalation_rate is not None else "local_error"
        aim = target.escalation_rate or target.max_local_error or 0.0
        threshold = self._gate.opening.max_p_wrong
        counts = Counter((label.source, "right" if label.is_right else "wrong") for label in labels)
        for source in ("audit", "escalated"):
            for verdict in ("right", "wrong"):
                self._metrics.labels(source, verdict, counts[source, verdict])
        self._metrics.gate(threshold=threshold, target=aim, kind=kind, is_paced=self._is_paced)
        self._metrics.audit_spend(spending.audits)
        if service.escalated is not None and service.drift is not None:
            self._metrics.judged(escalated=service.escalated, drift=service.drift)
        self.standing = {
            "target": {kind: aim},
            "threshold": _rounded(threshold),
            "judged": service.judged,
            "escalation_rate": _rounded(service.escalated),
            "drift": _rounded(service.drift),
            "drifted": self._drifted,
            "labels": {
                source: {v: counts[source, v] for v in ("right", "wrong")}
                for source in ("audit", "escalated")
            },
            "audit_spend": spending.audits,
            "budget": {
                "per_day": self._tuner.budget,
                "spent": spending.total,
                "sets_the_threshold": self._is_paced,
            },
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
