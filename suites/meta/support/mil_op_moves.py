"""What ops that move values are expected to answer: shapes, places, dtypes."""

from __future__ import annotations

import numpy as np
from mil_op_forms import AT, Op, X, bools, ints, normal, put

SHAPES = [
    Op("reshape", {"x": X}, lambda x: x.reshape(5, 6), {"shape": [5, -1]}),
    Op("transpose", {"x": X}, lambda x: x.transpose(2, 0, 1), {"perm": [2, 0, 1]}),
    Op("expand_dims", {"x": X}, lambda x: x[None, :, None], {"axes": [0, 2]}),
    Op("squeeze", {"x": normal(1, 3, 1)}, lambda x: x[0, :, 0], {"axes": [0, 2]}),
    Op("squeeze", {"x": normal(1)}, lambda x: x[0], {"axes": [0]}),
    Op("flatten2d", {"x": X}, lambda x: x.reshape(2, 15), {"axis": 1}),
    Op("concat", {"values": (X, X[:1])}, lambda v: np.concatenate(v, 0), {"axis": 0}),
    Op("concat", {"values": (ints(3), ints(2))}, lambda v: np.concatenate(v, 0), {"axis": 0}),
    Op(
        "concat",
        {"values": (X, -X)},
        lambda v: np.stack(v, 1).transpose(0, 2, 1, 3).reshape(2, 6, 5),
        {"axis": 1, "interleave": True},
    ),
    Op("stack", {"values": (X, -X)}, lambda v: np.stack(v, 1), {"axis": 1}),
    Op(
        "split",
        {"x": X},
        lambda x: (x[..., :2], x[..., 2:]),
        {"split_sizes": [2, 3], "axis": -1},
    ),
    Op("tile", {"x": X}, lambda x: np.tile(x, (1, 2, 3)), {"reps": [1, 2, 3]}),
    Op("shape", {"x": X}, lambda x: np.array(x.shape)),
    Op("reverse", {"x": X}, lambda x: x[:, :, ::-1], {"axes": [2]}),
    Op(
        "pad",
        {"x": X},
        lambda x: np.pad(x, ((0, 0), (1, 0), (0, 2)), constant_values=0.5),
        {"pad": [0, 0, 1, 0, 0, 2], "mode": "constant", "constant_val": 0.5},
    ),
    Op("band_part", {"x": normal(4, 4)}, np.tril, {"lower": -1, "upper": 0}),
]

PLACES = [
    Op("gather", {"x": normal(3, 5), "indices": AT}, lambda x, i: x[:, i], {"axis": 1}),
    Op(
        "gather",
        {"x": normal(5, 4), "indices": ints(2, 3, below=5)},
        lambda x, i: x[i],
        {"axis": 0},
    ),
    Op(
        "gather_along_axis",
        {"x": normal(3, 5), "indices": ints(3, 2, below=5)},
        lambda x, i: np.take_along_axis(x, i, 1),
        {"axis": 1},
    ),
    Op(
        "gather_nd",
        {"x": normal(3, 5, 2), "indices": ints(4, 2, below=3)},
        lambda x, i: x[i[:, 0], i[:, 1]],
    ),
    Op(
        "gather_nd",
        {"x": normal(2, 3, 5), "indices": ints(2, 4, 1, below=3)},
        lambda x, i: np.stack([x[b][i[b, :, 0]] for b in range(2)]),
        {"batch_dims": 1},
    ),
    Op(
        "slice_by_index",
        {"x": normal(6, 5, 4)},
        lambda x: x[1:6:2, 3, :],
        {
            "begin": [1, 3, 0],
            "end": [6, 0, 0],
            "stride": [2, 1, 1],
            "end_mask": [False, False, True],
            "squeeze_mask": [False, True, False],
        },
    ),
    Op(
        "slice_by_index",
        {"x": ints(4)},
        lambda x: x[2],
        {"begin": [2], "end": [3], "squeeze_mask": [True]},
    ),
    Op("slice_by_size", {"x": X}, lambda x: x[:, 1:3], {"begin": [0, 1, 0], "size": [-1, 2, -1]}),
    Op(
        "slice_update",
        {"x": normal(4, 6), "update": normal(4, 2)},
        lambda x, u: put(x, np.s_[:, 3:5], u),
        {"begin": [0, 3], "end": [4, 5]},
    ),
    *(
        Op(
            "scatter",
            {"data": normal(3, 5), "indices": AT, "updates": normal(3, 3)},
            lambda d, i, u, mode=mode: put(d, np.s_[:, i], u, mode),
            {"axis": 1, "mode": mode},
        )
        for mode in ("update", "add", "sub", "mul", "max", "min")
    ),
    *(
        Op(
            "scatter_along_axis",
            {"data": normal(5, 2), "indices": AT[:, None].repeat(2, 1), "updates": normal(3, 2)},
            lambda d, i, u, mode=mode: put(d, np.s_[i, np.arange(2)], u, mode),
            {"axis": 0, "mode": mode},
        )
        for mode in ("update", "add")
    ),
    *(
        Op(
            "scatter_nd",
            {"data": normal(5, 2, 3), "indices": AT[:, None], "updates": normal(3, 2, 3)},
            lambda d, i, u, mode=mode: put(d, np.s_[i[:, 0]], u, mode),
            {"mode": mode},
        )
        for mode in ("update", "add")
    ),
]

VALUES = [
    Op("cast", {"x": 3 * X}, lambda x: x.astype(np.int32), {"dtype": "int32"}),
    Op("cast", {"x": X}, lambda x: x.astype(np.float16), {"dtype": "fp16"}),
    Op("cast", {"x": ints(4)}, lambda x: x.astype(bool), {"dtype": "bool"}),
    Op("cast", {"x": bools(4)}, lambda x: x.astype(np.float32), {"dtype": "fp32"}),
    Op("cumsum", {"x": ints(3, 5)}, lambda x: x.cumsum(1), {"axis": 1}),
    Op("cumsum", {"x": X}, lambda x: x.cumsum(-1) - x, {"axis": -1, "exclusive": True}, terms=5),
    Op(
        "cumsum",
        {"x": X},
        lambda x: x[::-1].cumsum(0)[::-1] - x,
        {"axis": 0, "exclusive": True, "reverse": True},
        terms=3,
    ),
    Op("argsort", {"x": X}, lambda x: x.argsort(-1), {"axis": -1, "ascending": True}),
    Op("non_zero", {"x": bools(3, 5)}, np.argwhere),
    Op(
        "topk",
        {"x": X},
        lambda x: (-np.sort(-x, -1)[..., :2], (-x).argsort(-1)[..., :2]),
        {"k": 2, "axis": -1},
    ),
    Op("fill", {"shape": np.array([2, 3], np.int32)}, lambda s: np.full(s, 2.5), {"value": 2.5}),
    Op("fill_like", {"ref_tensor": X}, lambda x: np.full_like(x, 2.5), {"value": 2.5}),
    Op(
        "range_1d",
        {"end": np.array([11], np.int32)},
        lambda end: np.arange(2, end[0], 3),
        {"start": 2, "step": 3},
    ),
]
