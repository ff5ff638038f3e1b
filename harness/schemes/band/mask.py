"""The exact test: is this mask the plain causal band of a window, and nothing else?

Every entry of every row and every batch row is read: reading only some rows could miss a wrong one.
Axes of stride 0 (a mask that is expanded over the batch) are read once.  The verdict is kept on the
tensor, keyed by the window and by what shows that the tensor was changed or moved: its version
counter, address, shape and strides.  A table by id() would give a mask the verdict of another that
had its address before.

An edit that torch does not count (through `.data` or numpy) goes unnoticed, as it does in autograd:
call `forget` after such an edit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor

#: Attribute of a mask: window -> (state of the tensor, verdict).
_VERDICTS = "_harness_band_verdicts"

#: Rows that are tested together: many enough for few calls, few enough to find a bad row early.
_ROWS = 256

#: Version, address, shape, strides.
_State = tuple[int, int, tuple[int, ...], tuple[int, ...]]


def is_band(mask: Tensor, window: int) -> bool:
    """True iff `mask` lets each query see its own key and the window - 1 before it, no other.

    mask: (B or 1, H or 1, S, S), bool (True = visible) or additive (0 = visible; blocked at or
    below the lowest finite number of its dtype; with any other number it is not a band).  The
    verdict is kept on the tensor, except on one made in inference mode: its edits are not counted,
    so it is read each time.
    """
    state = _state(mask)
    verdicts = _verdicts(mask)
    if state is not None and verdicts.get(window, (None, False))[0] == state:
        return verdicts[window][1]
    verdict = read_band(mask, window)
    if state is not None:
        verdicts[window] = state, verdict
        with suppress(AttributeError):  # a subclass without attributes is read each time
            setattr(mask, _VERDICTS, verdicts)
    return verdict


def forget(mask: Tensor) -> None:
    """Drop the verdicts kept on a mask."""
    _verdicts(mask).clear()


def is_known(mask: Tensor, window: int) -> bool:
    """True if a verdict that still holds is kept on the mask."""
    state = _state(mask)
    return state is not None and _verdicts(mask).get(window, (None, False))[0] == state


def _state(mask: Tensor) -> _State | None:
    if mask.is_inference():
        return None
    return mask._version, mask.data_ptr(), tuple(mask.shape), mask.stride()


def _verdicts(mask: Tensor) -> dict[int, tuple[_State, bool]]:
    found: dict[int, tuple[_State, bool]] = getattr(mask, _VERDICTS, {})
    return found


def read_band(mask: Tensor, window: int) -> bool:
    """`is_band` without the kept verdict."""
    if mask.dim() != 4 or mask.shape[-1] != mask.shape[-2] or not mask.numel():
        return False
    if mask.dtype != torch.bool and not mask.is_floating_point():
        return False
    device_wide = mask.device.type != "cpu"
    flags = []
    for flag in _wrong_blocks(mask.detach(), window):
        if not device_wide and bool(flag):  # on a GPU each read would wait for the device
            return False
        flags.append(flag)
    return not bool(torch.stack(flags).any())


def _wrong_blocks(mask: Tensor, window: int) -> Iterator[Tensor]:
    """One bool scalar for each block of rows: True if an entry differs from the band."""
    size = mask.shape[-1]
    for plane in _planes(mask):
        for start in range(0, size, _ROWS):
            end = min(start + _ROWS, size)
            first = max(0, start - window + 1)
            rows = plane[start:end]
            yield _any_wrong_inside(rows[:, first:end], window, start - first)
            for outside in (rows[:, :first], rows[:, end:]):
                if outside.numel():
                    yield _any_visible(outside)


def _planes(mask: Tensor) -> Iterator[Tensor]:
    """The (S, S) planes of a mask, without those that share memory with another."""
    distinct = (range(1 if mask.stride(d) == 0 else mask.shape[d]) for d in (0, 1))
    rows, heads = distinct
    return (mask[b, h] for b in rows for h in heads)


def _any_visible(part: Tensor) -> Tensor:
    """True if an entry is not blocked."""
    if part.dtype == torch.bool:
        return part.view(torch.uint8).amax() != 0  # thirty times faster than any()
    return ~(part.amax() <= torch.finfo(part.dtype).min)  # NaN is not blocked


def _any_wrong_inside(part: Tensor, window: int, shift: int) -> Tensor:
    """True if an entry differs from the band, in the columns that the band crosses."""
    band = torch.ones(part.shape, dtype=torch.bool, device=part.device)
    band.tril_(shift).triu_(shift - window + 1)
    if part.dtype == torch.bool:
        return (part ^ band).view(torch.uint8).amax() != 0
    blocked = part <= torch.finfo(part.dtype).min
    return torch.where(band, part != 0, ~blocked).view(torch.uint8).amax() != 0
