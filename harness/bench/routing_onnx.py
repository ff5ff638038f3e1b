"""onnxruntime's GroupQueryAttention with a local window, as a peer of the kernel."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from harness.bench.geometry import Geometry

_NEEDS = ("onnxruntime", "onnx")
_INPUTS = ("query", "key", "value")


def attention(g: Geometry) -> Callable[[Tensor, Tensor, Tensor], Tensor] | str:
    """A function of q, k, v (1, H, S, D) -> out (1, Hq, S, D), or why there is none."""
    if missing := [name for name in _NEEDS if find_spec(name) is None]:
        return f"not installed: {', '.join(missing)}"
    if g.dtype != "float32":
        return f"not for {g.dtype}"
    session, lengths = _session(g), _lengths(g.length)

    def attend(*inputs: Tensor) -> Tensor:
        if any(x.requires_grad for x in inputs):
            raise NotImplementedError("a runtime for inference")
        fed = {
            name: x.transpose(1, 2).reshape(1, g.length, -1).numpy()
            for name, x in zip(_INPUTS, inputs, strict=True)
        }
        (out,) = session.run(["output"], fed | lengths)
        return torch.from_numpy(out).view(1, g.length, g.heads, g.head_dim).transpose(1, 2)

    return attend


def _lengths(length: int) -> dict[str, Any]:
    """The two inputs that say how many keys there are: the last key's index, and their number."""
    index, number = torch.tensor([length - 1]), torch.tensor([length])
    return {
        "seqlens_k": index.to(torch.int32).numpy(),
        "total_sequence_length": number.to(torch.int32).numpy(),
    }


def _session(g: Geometry) -> Any:
    """One node on as many threads as torch has; idle threads sleep, so CPU time counts work."""
    onnxruntime: Any = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        _model(g).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _model(g: Geometry) -> Any:
    """The window counts the query's own key, as ours does."""
    onnx: Any = import_module("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    names = [*_INPUTS, "", "", "seqlens_k", "total_sequence_length"]
    node = helper.make_node(
        "GroupQueryAttention",
        names,
        ["output", "present_key", "present_value"],
        domain="com.microsoft",
        num_heads=g.heads,
        kv_num_heads=g.kv_heads,
        local_window_size=g.window,
    )
    widths = (g.heads, g.kv_heads, g.kv_heads)
    value = helper.make_tensor_value_info
    inputs = [
        value(name, types.FLOAT, [1, g.length, heads * g.head_dim])
        for name, heads in zip(_INPUTS, widths, strict=True)
    ]
    inputs += [value(name, types.INT32, [1]) for name in names[-2:]]
    outputs = [
        value(name, types.FLOAT, None) for name in ("output", "present_key", "present_value")
    ]
    graph = helper.make_graph([node], "attention", inputs, outputs)
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8)
