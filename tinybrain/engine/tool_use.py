"""A model's calls of the calculator: what its answer must go on with after one.

Follows token ids, and knows the tokenizer; nothing of models or the engine.
"""

from tinybrain.engine.calculator import calculate
from tinybrain.engine.tokenizer import Tokenizer


class ToolUse:
    """Follows one answer, in which the model writes expressions between python marks.

    `in_expression` is true from a python_start up to its python_end: what is not for the reader.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._start, self._end, self._output_start, self._output_end = (
            tokenizer.special(name)
            for name in ("python_start", "python_end", "output_start", "output_end")
        )
        self._expression: list[int] = []
        self.in_expression = False

    def push(self, token: int) -> list[int]:
        """Take the answer's next token; give those that must follow it, mostly none.

        After a python_end that ends an expression with a value, they are the value's, between
        output marks. Whether they are pushed in their turn makes no difference.
        """
        if token == self._start:
            self._expression, self.in_expression = [], True
        elif token == self._end and self.in_expression:
            self.in_expression = False
            return self._output()
        elif self.in_expression:
            self._expression.append(token)
        return []

    def _output(self) -> list[int]:
        written = b"".join(map(self._tokenizer.token_bytes, self._expression))
        value = calculate(written.decode(errors="replace"))
        if value is None:
            return []
        return [self._output_start, *self._tokenizer.encode(value), self._output_end]
