"""Kernels for arithmetic: elementwise ops, activations, reductions and norms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from harness.mil.kernels import kernel

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "floor": torch.floor,
    "relu": torch.relu,
    "relu6": functional.relu6,
    "round": torch.round,
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "silu": functional.silu,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "softplus": functional.softplus,
    "softsign": functional.softsign,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}

_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "floor_div": torch.floor_divide,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,
    "mul": torch.mul,
    "pow": torch.pow,
    "sub": torch.sub,
}

_REDUCE: dict[str, Callable[..., Tensor]] = {
    "reduce_l1_norm": lambda x, axes, keep: x.abs().sum(axes, keep),
    "reduce_l2_norm": lambda x, axes, keep: x.square().sum(axes, keep).sqrt(),
    "reduce_log_sum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "reduce_log_sum_exp": torch.logsumexp,
    "reduce_max": torch.amax,
    "reduce_mean": lambda x, axes, keep: x.mean(axes, keep),
    "reduce_min": torch.amin,
    "reduce_sum": lambda x, axes, keep: x.sum(axes, keep),
    "reduce_sum_square": lambda x, axes, keep: x.square().sum(axes, keep),
}


def _unary(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return function(x)


def _binary(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    return function(x, y)


def _reduce(
    function: Callable[..., Tensor],
    x: Tensor,
    axes: Tensor | None = None,
    keep_dims: object = False,
) -> Tensor:
    over = list(range(x.dim())) if axes is None else axes.tolist()
    return function(x, over, bool(keep_dims))


for _name, _function in _UNARY.items():
    kernel(_name)(partial(_unary, _function))
for _name, _pair in _BINARY.items():
    kernel(_name)(partial(_binary, _pair))
for _name, _over in _REDUCE.items():
    kernel(_name)(partial(_reduce, _over))


@kernel("real_div")
def real_div(x: Tensor, y: Tensor) -> Tensor:
    """x / y; integers are divided and truncated towards zero."""
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


@kernel("log")
def log(x: Tensor, epsilon: Tensor) -> Tensor:
    """log(x + epsilon)."""
    return torch.log(x + epsilon)


@kernel("rsqrt")
def rsqrt(x: Tensor, epsilon: Tensor) -> Tensor:
    """1 / sqrt(x + epsilon)."""
    return torch.rsqrt(x + epsilon)


@kernel("inverse")
def inverse(x: Tensor, epsilon: Tensor) -> Tensor:
    """1 / (x + epsilon)."""
    return torch.reciprocal(x + epsilon)


@kernel("clip")
def clip(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """x, clamped to alpha…beta."""
    return torch.clamp(x, alpha, beta)


@kernel("leaky_relu")
def leaky_relu(x: Tensor, alpha: Tensor) -> Tensor:
    """x, or alpha * x where x is negative."""
    return functional.leaky_relu(x, float(alpha))


@kernel("elu")
def elu(x: Tensor, alpha: Tensor) -> Tensor:
    """x, or alpha * (exp(x) - 1) where x is negative."""
    return functional.elu(x, float(alpha))


@kernel("linear_activation")
def linear_activation(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """alpha * x + beta."""
    return x * alpha + beta


@kernel("gelu")
def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """GELU.  mode: EXACT (with erf), TANH_APPROXIMATION, or SIGMOID_APPROXIMATION.

    The last is x * sigmoid(1.702 x).
    """
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    approximate = {"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[mode]
    return functional.gelu(x, approximate=approximate)


@kernel("cumsum")
def cumsum(
    x: Tensor, axis: object = 0, exclusive: object = False, reverse: object = False
) -> Tensor:
    """Cumulative sums along an axis.

    exclusive: each sum leaves out its own element.  reverse: sums start at the end.
    """
    at = int(axis)  # type: ignore[call-overload]  # a tensor of rank 0
    y = x.flip(at) if bool(reverse) else x
    if bool(exclusive):
        y = torch.cat((torch.zeros_like(y.narrow(at, 0, 1)), y.narrow(at, 0, y.shape[at] - 1)), at)
    y = y.cumsum(at)
    return y.flip(at) if bool(reverse) else y


@kernel("softmax")
def softmax(x: Tensor, axis: Tensor) -> Tensor:
    """exp(x), divided by its sum along an axis."""
    return torch.softmax(x, int(axis))


@kernel("layer_norm")
def layer_norm(
    x: Tensor,
    axes: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | float = 1e-5,
) -> Tensor:
    """x with mean 0 and variance 1 over the axes, times gamma, plus beta.

    gamma and beta have the shape of those axes.
    """
    over = sorted(a % x.dim() for a in (range(x.dim()) if axes is None else axes.tolist()))
    centred = x - x.mean(over, keepdim=True)
    y = centred * torch.rsqrt(centred.square().mean(over, keepdim=True) + epsilon)
    shape = [n if i in over else 1 for i, n in enumerate(x.shape)]
    if gamma is not None:
        y = y * gamma.reshape(shape)
    return y if beta is None else y + beta.reshape(shape)


@kernel("l2_norm")
def l2_norm(x: Tensor, epsilon: Tensor) -> Tensor:
    """x / sqrt(sum of squares + epsilon), summed over the last three axes."""
    return x * torch.rsqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon)


@kernel("batch_norm")
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | float = 1e-5,
) -> Tensor:
    """x (B, C, …), normalised with the given mean and variance of each channel."""
    return functional.batch_norm(x, mean, variance, gamma, beta, eps=float(epsilon))
