"""Who answers: rules, the model's own doubt, and the cascade that acts on them."""

from tinybrain.routing.cascade import Cascade, Policy
from tinybrain.routing.events import (
    AnsweredBy,
    AnswerEvent,
    Completed,
    Decision,
    Delta,
    EscalationReason,
    ReasoningDelta,
)
from tinybrain.routing.gate import Gate
from tinybrain.routing.rules import RuleDecision, Rules
from tinybrain.routing.signals import Signals

__all__ = [
    "AnswerEvent",
    "AnsweredBy",
    "Cascade",
    "Completed",
    "Decision",
    "Delta",
    "EscalationReason",
    "Gate",
    "Policy",
    "ReasoningDelta",
    "RuleDecision",
    "Rules",
    "Signals",
]
