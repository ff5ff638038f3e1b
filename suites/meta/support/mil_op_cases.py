"""What every op of the interpreter is expected to answer: formulas in NumPy, in float64."""

from __future__ import annotations

import math

import numpy as np
from mil_op_forms import Array, Op, X, Y, attention, bools, ints, normal, softmax, unary
from mil_op_moves import PLACES, SHAPES, VALUES

erf = np.vectorize(math.erf)
SPREAD = np.linspace(-4, 4, 15, dtype=np.float32).reshape(3, 5)
POSITIVE = np.abs(normal(3, 5)) + np.float32(0.25)
UNIT = (np.clip(normal(3, 5), -2, 2) / np.float32(2.5)).astype(np.float32)

UNARY = [
    unary("abs", np.abs),
    unary("acos", np.arccos, UNIT),
    unary("asin", np.arcsin, UNIT),
    unary("atan", np.arctan),
    unary("ceil", np.ceil),
    unary("cos", np.cos),
    unary("cosh", np.cosh),
    unary("erf", erf),
    unary("exp", np.exp),
    unary("exp2", np.exp2),
    unary("floor", np.floor),
    unary("relu", lambda x: np.maximum(x, 0), SPREAD),
    unary("relu6", lambda x: np.clip(x, 0, 6), 2 * SPREAD),
    unary("round", np.round, SPREAD / 8),
    unary("sigmoid", lambda x: 1 / (1 + np.exp(-x)), SPREAD),
    unary("sign", np.sign, SPREAD),
    unary("silu", lambda x: x / (1 + np.exp(-x)), SPREAD),
    unary("sin", np.sin),
    unary("sinh", np.sinh),
    unary("softplus", lambda x: np.log1p(np.exp(x)), SPREAD),
    unary("softsign", lambda x: x / (1 + np.abs(x)), SPREAD),
    unary("sqrt", np.sqrt, POSITIVE),
    unary("square", np.square),
    unary("tan", np.tan, UNIT),
    unary("tanh", np.tanh, SPREAD),
    unary("identity", lambda x: x),
    unary("log", lambda x: np.log(x + 0.5), POSITIVE, epsilon=0.5),
    unary("rsqrt", lambda x: 1 / np.sqrt(x + 0.5), POSITIVE, epsilon=0.5),
    unary("inverse", lambda x: 1 / (x + 0.5), POSITIVE, epsilon=0.5),
    unary("clip", lambda x: np.clip(x, -0.5, 1), SPREAD, alpha=-0.5, beta=1.0),
    unary("leaky_relu", lambda x: np.where(x < 0, 0.25 * x, x), SPREAD, alpha=0.25),
    unary("elu", lambda x: np.where(x < 0, 0.5 * np.expm1(x), x), SPREAD, alpha=0.5),
    unary("linear_activation", lambda x: 0.5 * x + 2, SPREAD, alpha=0.5, beta=2.0),
    unary("gelu", lambda x: x * (1 + erf(x / 2**0.5)) / 2, SPREAD, mode="EXACT"),
    unary(
        "gelu",
        lambda x: x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2,
        SPREAD,
        mode="TANH_APPROXIMATION",
    ),
    unary("gelu", lambda x: x / (1 + np.exp(-1.702 * x)), SPREAD, mode="SIGMOID_APPROXIMATION"),
    unary("softmax", softmax, axis=-1),
    unary("softmax", lambda x: softmax(x.T).T, axis=0),
]

BINARY = [
    Op("add", {"x": X, "y": Y}, np.add),
    Op("sub", {"x": X, "y": Y}, np.subtract),
    Op("mul", {"x": X, "y": Y}, np.multiply),
    Op("real_div", {"x": X, "y": POSITIVE[0]}, np.divide),
    Op("maximum", {"x": X, "y": Y}, np.maximum),
    Op("minimum", {"x": X, "y": Y}, np.minimum),
    Op("pow", {"x": POSITIVE, "y": UNIT}, np.power),
    Op("floor_div", {"x": 4 * X, "y": POSITIVE[0]}, np.floor_divide),
    Op("mod", {"x": 4 * X, "y": POSITIVE[0]}, np.mod),
    Op("add", {"x": ints(4), "y": ints(4)}, np.add),
    Op("mod", {"x": ints(4) - 4, "y": ints(4) + 1}, np.mod),
    Op("floor_div", {"x": ints(4) - 4, "y": ints(4) + 1}, np.floor_divide),
    Op("equal", {"x": ints(3, 4), "y": ints(4)}, np.equal),
    Op("not_equal", {"x": ints(3, 4), "y": ints(4)}, np.not_equal),
    Op("greater", {"x": X, "y": Y}, np.greater),
    Op("greater_equal", {"x": ints(3, 4), "y": ints(4)}, np.greater_equal),
    Op("less", {"x": X, "y": Y}, np.less),
    Op("less_equal", {"x": ints(3, 4), "y": ints(4)}, np.less_equal),
    Op("logical_and", {"x": bools(9), "y": bools(9)}, np.logical_and),
    Op("logical_or", {"x": bools(9), "y": bools(9)}, np.logical_or),
    Op("logical_xor", {"x": bools(9), "y": bools(9)}, np.logical_xor),
    Op("logical_not", {"x": bools(9)}, np.logical_not),
    Op("select", {"cond": bools(3, 5), "a": normal(3, 5), "b": normal(3, 5)}, np.where),
]

OVER = {"axes": [-1], "keep_dims": True}
REDUCE = [
    Op("reduce_sum", {"x": X}, lambda x: x.sum(-1, keepdims=True), OVER, 5),
    Op("reduce_sum", {"x": X}, lambda x: x.sum((0, 2)), {"axes": [0, 2], "keep_dims": False}, 10),
    Op("reduce_sum", {"x": ints(3, 4)}, lambda x: x.sum(0), {"axes": [0], "keep_dims": False}),
    Op("reduce_mean", {"x": X}, lambda x: x.mean(-1, keepdims=True), OVER, 5),
    Op("reduce_max", {"x": X}, lambda x: x.max(-1, keepdims=True), OVER),
    Op("reduce_min", {"x": X}, lambda x: x.min(-1, keepdims=True), OVER),
    Op("reduce_sum_square", {"x": X}, lambda x: (x**2).sum(-1, keepdims=True), OVER, 5),
    Op("reduce_l1_norm", {"x": X}, lambda x: np.abs(x).sum(-1, keepdims=True), OVER, 5),
    Op("reduce_l2_norm", {"x": X}, lambda x: np.sqrt((x**2).sum(-1, keepdims=True)), OVER, 5),
    Op("reduce_log_sum", {"x": POSITIVE}, lambda x: np.log(x.sum(-1, keepdims=True)), OVER, 5),
    Op(
        "reduce_log_sum_exp",
        {"x": X},
        lambda x: np.log(np.exp(x).sum(-1, keepdims=True)),
        OVER,
        5,
    ),
    Op("reduce_argmax", {"x": X}, lambda x: x.argmax(1), {"axis": 1, "keep_dims": False}),
    Op("reduce_argmin", {"x": X}, lambda x: x.argmin(1), {"axis": 1, "keep_dims": False}),
]

G, B5 = normal(5), normal(5)


def normed(x: Array, epsilon: float) -> Array:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)


NORMS = [
    Op("layer_norm", {"x": X}, lambda x: normed(x, 1e-3), {"axes": [-1], "epsilon": 1e-3}, 5),
    Op(
        "layer_norm",
        {"x": X},
        lambda x: normed(x, 1e-3) * G + B5,
        {"axes": [2], "epsilon": 1e-3, "gamma": G, "beta": B5},
        5,
    ),
    Op(
        "l2_norm",
        {"x": X},
        lambda x: x / np.sqrt((x**2).sum() + 1e-3),
        {"epsilon": 1e-3},
        30,
    ),
    Op(
        "batch_norm",
        {"x": normal(2, 5, 3)},
        lambda x: (x - B5[:, None]) / np.sqrt(np.abs(G[:, None]) + 1e-3),
        {"mean": B5, "variance": np.abs(G), "epsilon": 1e-3},
    ),
]

Q, K, V = normal(2, 4, 6, 8), normal(2, 4, 7, 8), normal(2, 4, 7, 5)
QKV = {"query": Q, "key": K, "value": V}
ROWS = bools(6, 7) | (np.arange(7) == 3)  # no row without a visible key
KERNEL = normal(6, 5, 1)
PRODUCTS = [
    Op("matmul", {"x": Q, "y": K}, lambda x, y: x @ y.swapaxes(-1, -2), {"transpose_y": True}, 8),
    Op(
        "matmul",
        {"x": normal(5, 3), "y": normal(5, 4)},
        lambda x, y: x.T @ y,
        {"transpose_x": True},
        5,
    ),
    Op("linear", {"x": X}, lambda x: x @ KERNEL[..., 0].T, {"weight": KERNEL[..., 0]}, 5),
    Op(
        "linear",
        {"x": X},
        lambda x: x @ KERNEL[..., 0].T + 2,
        {"weight": KERNEL[..., 0], "bias": np.full(6, 2, np.float32)},
        6,
    ),
    Op(
        "einsum",
        {"values": (normal(2, 3, 4, 5), normal(2, 5, 4, 6))},
        lambda values: np.einsum("bcij,bjik->bcik", *values),
        {"equation": "bcij,bjik->bcik"},
        5,
    ),
    Op("conv", {"x": normal(2, 5, 9)}, lambda x: KERNEL[..., 0] @ x, {"weight": KERNEL}, 5),
    Op(
        "conv",
        {"x": normal(1, 2, 7)},
        lambda x: np.stack([x[:, 0] * 2, x[:, 1] * 3], 1)[:, :, ::2],
        {
            "weight": np.array([[[2]], [[3]]], np.float32),
            "groups": 2,
            "strides": [2],
            "pad_type": "valid",
        },
    ),
    Op(
        "conv",
        {"x": normal(1, 1, 5)},
        lambda x: np.convolve(x[0, 0], [1, 2, 4])[None, None, :5],  # causal: padded on the left
        {
            "weight": np.array([[[4, 2, 1]]], np.float32),
            "pad_type": "custom",
            "pad": [2, 0],
        },
        3,
    ),
    Op("scaled_dot_product_attention", QKV, attention, terms=15),
    Op("scaled_dot_product_attention", QKV | {"attn_mask": normal(6, 7)}, attention, terms=15),
    Op("scaled_dot_product_attention", QKV | {"attn_mask": normal(7)}, attention, terms=15),
    Op("scaled_dot_product_attention", QKV | {"attn_mask": ROWS}, attention, terms=15),
    Op(
        "scaled_dot_product_attention",
        QKV | {"attn_mask": ROWS[None, None]},
        attention,
        terms=15,
    ),
    Op(
        "scaled_dot_product_attention",
        QKV | {"attn_mask": normal(2, 1, 6, 7)},
        attention,
        terms=15,
    ),
    Op(
        "scaled_dot_product_attention",
        {"query": Q[0], "key": K[0], "value": V[0], "attn_mask": normal(4, 1, 7)},
        attention,
        terms=15,
    ),
]

CASES = [*UNARY, *BINARY, *REDUCE, *NORMS, *PRODUCTS, *SHAPES, *PLACES, *VALUES]
FLOATS = [
    c
    for c in CASES
    if any(
        v.dtype == np.float32
        for value in c.inputs.values()
        for v in (value if isinstance(value, tuple) else (value,))
    )
    and c.op not in ("cast", "fill_like")
]
