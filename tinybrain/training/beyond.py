"""Tasks the model is taught to decline: templates filled with words."""

from random import Random

from tinybrain.training.conversations import Exchange
from tinybrain.training.data_files import lines, read_data
from tinybrain.training.surfaces import surface


class Beyond:
    """Writes tasks that are beyond the model, and its reply to them."""

    def __init__(self, random: Random) -> None:
        data = read_data("beyond")
        self._random = random
        self._templates = lines(data["templates"])
        self._words: dict[str, list[str]] = data["words"]
        self._reply: str = data["reply"]

    def write(self) -> Exchange:
        """One task and the reply."""
        words = {name: self._random.choice(choices) for name, choices in self._words.items()}
        numbers = {name: str(self._random.randint(2, 99)) for name in "nmk"}
        text = self._random.choice(self._templates).format(**words, **numbers)
        return Exchange(surface(text, self._random), self._reply)


def beyond_reply() -> str:
    """How the model says that a task is beyond it."""
    reply: str = read_data("beyond")["reply"]
    return reply
