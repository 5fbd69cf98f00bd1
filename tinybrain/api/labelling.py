"""From an answer that ended to what may be labelled of it."""

from tinybrain.api.choices import Choice
from tinybrain.api.requests import ChatRequest
from tinybrain.payments.records import AnswerRecord
from tinybrain.routing.online.auditor import Answered


def answered(
    request: ChatRequest, answer_id: str, choice: Choice, record: AnswerRecord
) -> Answered | None:
    """The answer, if its question was put to the gate, and one model wrote all of it.

    One of several choices is none: the least sure of them would be judged for all.
    """
    decision, end = choice.decision, choice.completed
    if decision is None or decision.signals is None or end is None:
        return None
    if record.choices is not None or record.fallback or end.finish_reason != "stop":
        return None
    return Answered(
        answer_id=answer_id,
        source="audit" if decision.reason == "none" else "escalated",
        messages=request.messages,
        text=choice.content,
        signals=decision.signals,
        sampling=request.sampling,
        local_sampling=request.local_sampling,
    )
