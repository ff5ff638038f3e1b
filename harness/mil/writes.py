"""Kernels that concatenate tensors, write into a copy by index, or gather by index vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.mil.errors import MilError
from harness.mil.inference import check_indices
from harness.mil.kernels import kernel

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@kernel("concat", like="values")
def concat(values: list[Tensor], axis: Tensor, interleave: object = False) -> Tensor:
    """The tensors concatenated along an axis; interleave: their slices take turns instead."""
    if not bool(interleave):
        return torch.cat(values, int(axis))
    at = int(axis) % values[0].dim()
    return torch.stack(values, at + 1).flatten(at, at + 1)


@kernel("scatter", like="data")
def scatter(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: Tensor,
    mode: str,
    validate_indices: object = False,  # noqa: ARG001  # indices are always checked here
) -> Tensor:
    """A copy of data with updates applied, as `mode` says, at the given indices of an axis."""
    at = int(axis) % data.dim()
    check_indices("scatter", indices, data.shape[at])
    shape = [1] * data.dim()
    shape[at] = -1
    return _written("scatter", data, at, indices.reshape(shape).expand_as(updates), updates, mode)


@kernel("scatter_along_axis", like="data")
def scatter_along_axis(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: Tensor,
    mode: str,
    validate_indices: object = False,  # noqa: ARG001  # indices are always checked here
) -> Tensor:
    """A copy of data with updates applied; indices (same shape) says where along the axis."""
    at = int(axis) % data.dim()
    check_indices("scatter_along_axis", indices, data.shape[at])
    return _written("scatter_along_axis", data, at, indices, updates, mode)


@kernel("scatter_nd", like="data")
def scatter_nd(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    mode: str,
    validate_indices: object = False,  # noqa: ARG001  # indices are always checked here
) -> Tensor:
    """A copy of data with updates applied at the index vectors in the last axis of `indices`."""
    flat, at = _flattened("scatter_nd", data, indices)
    new = updates.reshape(at.numel(), -1)
    where = at.reshape(-1, 1).expand_as(new)
    return _written("scatter_nd", flat, 0, where, new, mode).reshape(data.shape)


@kernel("gather_nd", like="x")
def gather_nd(
    x: Tensor,
    indices: Tensor,
    batch_dims: object = 0,
    validate_indices: object = False,  # noqa: ARG001  # indices are always checked here
) -> Tensor:
    """Slices of x at the index vectors in the last axis of `indices`."""
    batch = int(batch_dims)  # type: ignore[call-overload]  # a tensor of rank 0
    if batch:
        rows = zip(x.flatten(0, batch - 1), indices.flatten(0, batch - 1), strict=True)
        out = torch.stack([gather_nd(a, b) for a, b in rows])
        return torch.unflatten(out, 0, x.shape[:batch])
    flat, at = _flattened("gather_nd", x, indices)
    return flat[at].reshape(*indices.shape[:-1], *x.shape[indices.shape[-1] :])


def _flattened(op: str, x: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """x as (N, rest), with the indexed axes flattened to N, and the index in N of each vector."""
    depth = indices.shape[-1]
    at = torch.zeros(indices.shape[:-1], dtype=torch.int64)
    for axis in range(depth):
        check_indices(op, indices[..., axis], x.shape[axis])
        at = at * x.shape[axis] + indices[..., axis]
    return x.reshape(*([-1] if depth else [1]), *x.shape[depth:]).flatten(1), at


def _written(
    op: str, data: Tensor, axis: int, indices: Tensor, updates: Tensor, mode: str
) -> Tensor:
    at = indices.to(torch.int64)
    if mode == "update":
        return data.scatter(axis, at, updates)
    if mode == "sub":
        return data.scatter_reduce(axis, at, -updates, "sum")
    if mode not in _REDUCTIONS:
        allowed = ", ".join(sorted({"update", "sub", *_REDUCTIONS}))
        raise MilError(f"{op}: mode must be one of {allowed}, got {mode!r}")
    return data.scatter_reduce(axis, at, updates, _REDUCTIONS[mode])
