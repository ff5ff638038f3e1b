"""The one bound of the harness, and the guard that proves it is not blind.

**Derivation.**  A cached run and a dense run in the same precision do the same arithmetic on each
row in a different order: chunks change the shapes of matrix products, and a ring permutes the keys
that are summed.  Two sources of error follow, and the bound is their sum.

1. What the precision costs this model on this input, with all that its layers amplify.  It is
   measured, not guessed: ``e_r`` is the largest deviation in row r of a *dense* run in the
   subject's own precision from float64.  The cached run is a second sample of the same error.  A
   row may be lucky, so e_r is taken no smaller than the mean over rows, and ``SAMPLE = 3`` allows
   the second maximum to exceed the first: errors are sums of many roundings, whose maxima over a
   row of dozens of entries stay within that factor of each other.
2. What another order of summation may cost where the dense run happened to be exact (a row with
   one key, say).  Summing n terms with unit roundoff u errs by at most ``lambda * sqrt(n) * u``
   relative to the sum of magnitudes, with probability at least 1 - 2 exp(-lambda^2 / 2) (Higham
   and Mary, SIAM J. Sci. Comput. 41(5), 2019, theorem 2.4).  ``LAMBDA = 6`` makes that 3e-8 per
   sum.  n is the number of visible keys plus the head's width; the magnitudes are computed for a
   single layer, and for a stack the row's scale stands for them; each layer adds one such sum.
   Half-precision kernels accumulate in float32, so u is float32's there: what half precision
   itself costs is measured in 1.

The dense run is checked too (`unexplained`): the first source is a measurement, and a subject
whose dense run is wrong in its own precision would gain room by it.  Its error may be at most
``DOUBT = SAMPLE * LAMBDA`` times what the second source's sums explain, at the unit roundoff of
its own precision.  In sound models it is below a quarter of that.

A fixed tolerance would be loose for shallow models and tight for deep ones, and a norm over all
rows hides one wrong row: 3e-2 relative has passed windows that are one key off.

**The guard.**  A bound is worth something only if it tells the law from its neighbours.  The
oracle is evaluated for the nearest wrong laws as well (`neighbours`); each must break the bound by
a factor of `SEPARATION` in some row.  If not, the case is blind and fails, whatever the subject
did.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from harness.law import Layer

#: An output counts as moved if it changes by more than this part of its scale.  Rounding stays
#: below `DOUBT` unit roundoffs of the scale, by the derivation above: 2e-15, 1.1e-6, 8.8e-3 and
#: 7e-2.  Each limit is the next power of ten; float64, where nothing comes near, has two more.  A
#: token that a row can see moves it by more: in the matrix by at least 1e-3 of the scale, a hundred
#: times float32's limit.
MOVED = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-1}

SAMPLE = 3.0
#: The same for the maximum over all rows, of thousands of entries: two such maxima are nearer to
#: each other.  In ten sets of weights the second was at most 1.43 times the first.
SAMPLE_OF_ALL = 2.0
LAMBDA = 6.0
SEPARATION = 10.0
DOUBT = SAMPLE * LAMBDA


def row_error(got: Tensor, exact: Tensor) -> Tensor:
    """Largest absolute deviation of each row: (..., n, F) -> (n,) float64; NaN counts as inf."""
    error = (got.double() - exact.double()).abs()
    error = torch.where(error.isnan(), torch.inf, error)
    rows = error.amax(-1)
    return rows.flatten(0, -2).amax(0) if rows.dim() > 1 else rows


def row_bound(
    own: Tensor,
    exact: Tensor,
    n_keys: Tensor,
    width: int,
    depth: int,
    magnitude: Tensor | None = None,
) -> Tensor:
    """The bound of each row, (n,) float64, as derived above.

    own: a dense run in the subject's precision, (..., n, F); exact: the same in float64;
    n_keys (n,): keys that each row sums; width: terms of the other sums (head_dim);
    depth: layers; magnitude (..., n, F): the sums with all their terms made positive, where they
    are known, since a sum that cancels keeps the rounding of its terms; by default the row itself.
    """
    accumulate = torch.float64 if own.dtype == torch.float64 else torch.float32
    unit = torch.finfo(accumulate).eps / 2
    measured = row_error(own, exact)
    measured = torch.maximum(measured, measured.mean())
    summed = exact if magnitude is None else magnitude
    scale = row_error(summed, torch.zeros_like(summed))
    terms = (n_keys.double() + width).sqrt()
    return SAMPLE * measured + LAMBDA * unit * depth * terms * scale


def exponent_bound(score: float, magnitude: Tensor) -> Tensor:
    """What a score of this size may cost each row (n,) beside `row_bound`, in float32.

    magnitude (..., n, F): the row's sum with its signs dropped.  A softmax takes the difference of
    two scores, each rounded to a unit roundoff of itself (and once more as an exponent of 2, arXiv
    2307.08691): a weight is off by at most a factor exp(2 * lambda * u * score), and the row by as
    much of its magnitude.
    """
    unit = torch.finfo(torch.float32).eps / 2
    factor = math.expm1(2 * LAMBDA * unit * abs(score))
    return factor * row_error(magnitude, torch.zeros_like(magnitude))


def unexplained(
    own: Tensor, exact: Tensor, n_keys: Tensor, width: int, depth: int, unit: float
) -> float:
    """How far the worst row of a dense run is from float64, in units of what rounding explains.

    unit: the unit roundoff of the coarsest number that is kept on the way; the other arguments are
    those of `row_bound`.  Beyond `DOUBT` the run is not the same model in less precision.
    """
    error, scale = row_error(own, exact), row_error(exact, torch.zeros_like(exact))
    sums = unit * depth * (n_keys.double() + width).sqrt() * scale
    return float(torch.where(error == 0, 0, error / sums).max())


def moved(a: Tensor, b: Tensor) -> Tensor:
    """Bool (...): rows of a (..., F) that differ from b's by more than rounding.

    A row of NaN or infinities counts as moved unless b's holds the same ones in the same places.
    """
    finite = b.isfinite()
    scale = torch.where(finite, b, 0).abs().amax()
    limit = MOVED[str(b.dtype).removeprefix("torch.")] * scale
    same = (a == b) | (a.isnan() & b.isnan())  # infinities, too, whose difference is NaN
    difference = torch.where(same, 0, a - b).abs()
    return ~((difference <= limit).all(-1))


def same_bits(a: Tensor, b: Tensor) -> bool:
    """True if two tensors are equal in every entry; NaN equals NaN."""
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def neighbours(layer: Layer, n: int) -> Iterator[Layer]:
    """The wrong laws nearest to `layer` that differ from it within n positions.

    Where the window is not reached, or there is none, the nearest law that differs forgets the
    first key at the last position: a window of n - 1.
    """
    truth = layer.mask(0, n, n)
    found = [near for near in layer.neighbours() if not near.mask(0, n, n).equal(truth)]
    loses_a_key = any((truth & ~near.mask(0, n, n)).any() for near in found)
    if not loses_a_key and n > 1:
        shorter = replace(layer, window=min(layer.window or n, n) - 1 or 1, sink=0)
        if not shorter.mask(0, n, n).equal(truth):
            found.append(shorter)
    yield from found


def wrong_stacks(layers: Sequence[Layer], n: int) -> Iterator[tuple[Layer, ...]]:
    """Stacks with exactly one wrong layer: the first and the last of each distinct law.

    One wrong layer is nearer to the truth than all of a kind, so a bound that tells it apart tells
    the others apart as well.
    """
    for law in dict.fromkeys(layers):
        at = [i for i, other in enumerate(layers) if other == law]
        for i in sorted({at[0], at[-1]}):
            for near in neighbours(law, n):
                yield (*layers[:i], near, *layers[i + 1 :])


def difference(truth: Sequence[Layer], wrong: Sequence[Layer]) -> str:
    """How a stack of wrong laws differs, in the first layer that does: "window 9"."""
    pairs = zip(truth, wrong, strict=True)
    law, near = next((a, b) for a, b in pairs if a != b)
    changed = {
        name: getattr(near, name)
        for name in ("window", "sink", "chunk")
        if getattr(near, name) != getattr(law, name)
    }
    return ", ".join(f"{name} {value}" for name, value in changed.items())


def margin(exact: Tensor, wrong: Iterable[Tensor], bound: Tensor) -> float | None:
    """How many bounds away the nearest wrong law is; None if there is none to compare.

    Each wrong law counts by the row that shows it best; the margin is the smallest over the laws.
    """
    return nearest((row_error(other, exact) for other in wrong), bound)


def nearest(errors: Iterable[Tensor], bound: Tensor) -> float | None:
    """`margin`, from the row errors (n,) of the wrong laws."""
    ratios = [float(over(e, bound).max()) for e in errors]
    return min(ratios) if ratios else None


def over(errors: Tensor, bound: Tensor) -> Tensor:
    """Row errors (n,) divided by their bounds; a row that is exact fits a bound of 0."""
    return torch.where(errors == 0, 0, errors / bound)


def curves(wrong: Iterable[tuple[str, Tensor]], bound: Tensor) -> dict[str, list[float]]:
    """The error of each row over its bound under each wrong law, to three digits.

    wrong: (name, row errors (n,)); of several with one name the nearest to the truth is taken.
    """
    found: dict[str, Tensor] = {}
    for name, errors in wrong:
        ratios = over(errors, bound)
        if name not in found or float(ratios.max()) < float(found[name].max()):
            found[name] = ratios
    return {name: [float(f"{r:.3g}") for r in ratios.tolist()] for name, ratios in found.items()}
