"""Judge the program of a form: inputs, the exact answer, and how far off a program may be.

The exact answer is float64 on the rounded inputs.  The bound is a worst case, to first order in the
unit roundoff u of the form's type (u32: of float32): a form may have a single row of a single
number, too little to measure an error by.  With A = scale * sum |q| |k|, E the width of a head, s a
score and m its mask:

- a score is off by d <= u (2 A + |s| + |s + m|) + E u32 A: the scale and the scaled query are
  rounded, the product once at its end (sums are in float32 at least), and so is the masked score;
- a weight is off by exp(2 d) - 1, for numerator and denominator, and by its own roundings;
- a row sums S weighted values, with a rounding relative to sum w |v|.

Half precision has a further limit, its smallest number: what is smaller is lost, S times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.subjects.coreml.sliced_q_programs import Form, run

#: Roundings of a weight after its exponential: sum, quotient, a cast, and the row itself.
_ROUNDINGS = 4


@dataclass(frozen=True)
class Inputs:
    """Inputs of one form: q, k, v in its dtype, and the mask, if it has one."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None


def inputs_for(form: Form, seed: int, level: float | None = None) -> Inputs:
    """Standard normal inputs; with a `level`, queries and keys are that number throughout.

    Their products can then overflow where the scaled scores do not.  A mask hides about a third of
    the keys, and every third row sees none.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator)

    dtype = getattr(torch, form.dtype)
    q, k = (
        normal(shape) if level is None else torch.full(shape, level)
        for shape in (form.query, form.key)
    )
    mask = None
    if form.mask is not None:
        hidden = normal(form.mask) > 0.5
        if len(form.mask) > 1:
            hidden[..., 2::3, :] = True
        added = normal(form.mask).masked_fill(hidden, -math.inf)
        mask = ~hidden if form.mask_dtype == "bool" else added.to(getattr(torch, form.mask_dtype))
    return Inputs(q.to(dtype), k.to(dtype), normal(form.value).to(dtype), mask)


def truth(form: Form, x: Inputs) -> tuple[Tensor, Tensor]:
    """The exact output (NaN in rows that see nothing), and how far off each number may be."""
    q, k, v = x.q.double(), x.k.double(), x.v.double()
    scale = 1 / math.sqrt(q.shape[-1])
    scores = q @ k.transpose(-1, -2) * scale
    masked = scores
    if x.mask is not None and x.mask.dtype == torch.bool:
        masked = scores.masked_fill(~x.mask, -math.inf)
    elif x.mask is not None:
        masked = scores + x.mask.double()
    weights = torch.softmax(masked, -1)
    unit = torch.finfo(getattr(torch, form.dtype)).eps / 2
    summing = torch.finfo(torch.float32).eps / 2
    size = q.abs() @ k.abs().transpose(-1, -2) * scale
    seen = masked.where(masked.isfinite(), torch.zeros(()).double())
    off = unit * (2 * size + scores.abs() + seen.abs()) + q.shape[-1] * summing * size
    worst = off.masked_fill(masked == -math.inf, 0).amax(-1, keepdim=True)
    keys = k.shape[-2]
    relative = torch.expm1(2 * worst) + _ROUNDINGS * unit + 2 * keys * summing
    lost = keys * torch.finfo(getattr(torch, form.dtype)).smallest_normal * unit
    return weights @ v, relative * (weights @ v.abs()) + lost * (1 + v.abs().amax())


def problem(form: Form, program: Any, seed: int = 0, level: float | None = None) -> str:
    """What is wrong with a program's answer; "" if it is right."""
    x = inputs_for(form, seed, level)
    got = run(program, form, x.q, x.k, x.v, x.mask)
    exact, bound = truth(form, x)
    if tuple(got.shape) != tuple(exact.shape) or got.dtype != x.q.dtype:
        return f"answers {tuple(got.shape)} {got.dtype}, not {tuple(exact.shape)} {x.q.dtype}"
    if not torch.equal(got.isnan(), exact.isnan()):
        at = np.argwhere((got.isnan() != exact.isnan()).numpy())[0].tolist()
        return f"NaN mismatch: at {at} it answers {got[tuple(at)]}, not {exact[tuple(at)]:.4g}"
    error, bound = (got.double() - exact).abs().nan_to_num(0, math.inf), bound.nan_to_num(0)
    if bool((error <= bound).all()):
        return ""
    at = np.unravel_index(int((error / bound).nan_to_num(0).argmax()), error.shape)
    return f"off by {error[at]:.3g} at {[int(i) for i in at]}, where {bound[at]:.3g} is allowed"
