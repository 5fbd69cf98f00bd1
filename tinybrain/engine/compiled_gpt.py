"""A FastGPT whose small operations torch.compile makes few kernels of.

What stands before and behind attention is compiled once, for all layers: they differ in nothing
but their weights. A batch of one is a case of its own, in which products are part of these kernels.
"""

from typing import Any

import torch
from torch import Tensor

from tinybrain.engine.fast_gpt import FastGPT


class CompiledGPT(FastGPT):
    """Shares all weights with the model it is made of."""

    def __init__(self, model: FastGPT) -> None:
        vars(self).update(vars(model))
        # Without the tuning, products with one row are left to libraries.
        options: dict[str, Any] = {"coordinate_descent_tuning": True}
        self._compiled_project = torch.compile(model._project, options=options)  # noqa: SLF001  # its base's
        self._compiled_go_on = torch.compile(model._go_on, options=options)  # noqa: SLF001  # likewise

    def _project(self, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        return self._compiled_project(*arguments)

    def _go_on(self, *arguments: Any) -> Tensor:
        return self._compiled_go_on(*arguments)
