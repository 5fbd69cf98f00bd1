"""From an answer that ended to what may be labelled of it."""

from tinybrain.api.progress import Progress
from tinybrain.api.requests import ChatRequest
from tinybrain.routing.online.auditor import Answered


def answered(request: ChatRequest, answer_id: str, progress: Progress) -> Answered | None:
    """The answer, if its question was put to the gate and it is whole.

    One of several choices is not: the least sure of them would be judged for all.
    """
    if len(progress.choices) != 1:
        return None
    (choice,) = progress.choices
    decision, end = choice.decision, choice.completed
    if decision is None or decision.signals is None or decision.fallback:
        return None
    if end is None or end.finish_reason != "stop":
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
