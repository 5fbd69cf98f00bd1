"""The architectures nanochat has had, told apart by what their checkpoints hold.

Much of what differs leaves no trace in a file (the base of the rotary embedding, the scale of
queries and keys, the size of a short window), so each variant is a row of facts here, and a
checkpoint that fits none is refused instead of guessed at. Source: the history of nanochat/gpt.py
in karpathy/nanochat, October 2025 to July 2026.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

WINDOW_STEP = 128
"""From V5 on, short windows are multiples of this."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What a forward pass has to know beside the sizes in a checkpoint's config."""

    name: str
    since: str
    residual_scales: bool = False
    """Each block starts from `resid_lambdas[i] * x + x0_lambdas[i] * x0`, x0 the embedding."""
    window_share: int | None = None
    """A short window is the context over this; None: every layer looks at the whole context."""
    window_rounded: bool = False
    value_gate: int | None = None
    """Channels that decide how much of a token's value embedding joins its values."""
    value_gate_scale: float = 2.0
    rope_base: int = 10_000
    rope_rounded: bool = True
    """Its cosines and sines are rounded to bf16."""
    qk_scale: float = 1.0
    logit_cap: float = 15.0
    smear: bool = False
    """Some of the token before joins each token; the middle of the network is taken out at its
    end."""

    def short_window(self, context: int) -> int:
        """How many tokens back a layer with a short window looks."""
        assert self.window_share is not None  # noqa: S101  # only such layers ask
        if not self.window_rounded:
            return context // self.window_share
        return -(-context // self.window_share // WINDOW_STEP) * WINDOW_STEP


V1 = Variant("V1", "October 2025")
V2 = replace(V1, name="V2", since="11 January 2026", residual_scales=True)
V3 = replace(V2, name="V3", window_share=2)
V4 = replace(V3, name="V4", since="16 January 2026", value_gate=32)
V4_MARCH = replace(V4, name="V4-march", since="2 March 2026", rope_rounded=False, logit_cap=20.0)
"""For a week; no file says so, so its name has to be given."""
V5 = replace(
    V4,
    name="V5",
    since="9 March 2026",
    window_share=3,
    window_rounded=True,
    rope_rounded=False,
    value_gate=12,
    value_gate_scale=3.0,
    rope_base=100_000,
    qk_scale=1.15,
)
V6 = replace(V5, name="V6", since="14 March 2026", window_share=4, qk_scale=1.2, smear=True)
VARIANTS = {variant.name: variant for variant in (V1, V2, V3, V4, V4_MARCH, V5, V6)}


def variant_of(widths: Mapping[str, int], *, has_windows: bool) -> Variant:
    """The variant of a checkpoint, by the last dimension of each tensor.

    `has_windows`: whether its config has a window pattern. Tensors that the variant does not have
    are the caller's to refuse.
    """
    gates = {width for name, width in widths.items() if name.endswith(".attn.ve_gate.weight")}
    if "smear_lambda" in widths:
        return V6
    if gates == {V5.value_gate}:
        return V5
    if gates:
        return V4
    if has_windows:
        return V3
    return V2 if "resid_lambdas" in widths else V1
