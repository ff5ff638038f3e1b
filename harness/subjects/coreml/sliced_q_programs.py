"""One attention as a MIL program, in the many forms in which it can be written.

A `Form` gives shapes, types, and what is known when the program is made.  `fused` builds the
program with the fused op, as a converter does; `sliced` runs a sliced-Q pass over it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import coremltools as ct
import numpy as np
import torch
from coremltools.converters.mil import mil
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY
from torch import Tensor

from harness.mil import interpreter
from harness.mil.conversion import hushed
from harness.schemes.sliced_q.log import Log
from harness.schemes.sliced_q.mil_pass import SlicedQ
from harness.schemes.sliced_q.slicer import mb

SHIPPED = "common::scaled_dot_product_attention_sliced_q"
ATTENTION = "scaled_dot_product_attention"

#: What may be known only at run time: rows of the query, number of keys, batch, rows of the mask.
DYNAMIC = ("length", "keys", "batch", "mask")

_TYPES = {"float32": types.fp32, "float16": types.fp16, "bool": types.bool}


class DidNotFireError(Exception):
    """A pass did not slice an attention that it should have sliced."""


@dataclass(frozen=True)
class Form:
    """How one attention is written.

    query, key, value, mask: shapes; a mask of None means no mask.  dtype: of all but the mask.
    dynamic: names from `DYNAMIC`.  inside: true if it is in a branch of control flow.
    """

    query: tuple[int, ...]
    key: tuple[int, ...]
    value: tuple[int, ...]
    dtype: str = "float32"
    mask: tuple[int, ...] | None = None
    mask_dtype: str = "bool"
    dynamic: frozenset[str] = frozenset()
    inside: bool = False

    def __str__(self) -> str:
        mask = "no mask" if self.mask is None else f"mask {self.mask} {self.mask_dtype}"
        parts = [f"q {self.query} k {self.key} v {self.value} {self.dtype}", mask]
        parts += [f"dynamic {name}" for name in sorted(self.dynamic)]
        return ", ".join([*parts, "in a branch"] if self.inside else parts)


def fused(form: Form) -> Any:
    """A program with one fused attention.

    Inputs: q, k, v; mask, if the form has one; go, if there is a branch, taken if go is positive.
    """
    with mil.Function(_placeholders(form), opset_version=ct.target.iOS18) as main:
        given = main.inputs
        mask = {"attn_mask": given["mask"]} if "mask" in given else {}

        def attention() -> Any:
            q, k, v = given["q"], given["k"], given["v"]
            return mb.scaled_dot_product_attention(query=q, key=k, value=v, **mask)

        def other() -> Any:
            product = mb.matmul(x=given["k"], y=given["v"], transpose_x=True)
            return mb.matmul(x=given["q"], y=product)

        if form.inside:
            go = mb.squeeze(x=mb.greater(x=given["go"], y=np.float32(0)))
            out = mb.cond(pred=go, _true_fn=attention, _false_fn=other)
        else:
            out = attention()
        main.set_outputs([mb.identity(x=out, name="out")])
    program = mil.Program()
    program.add_function("main", main)
    return program


def _placeholders(form: Form) -> dict[str, Any]:
    """The inputs of a form's program, with symbols for dynamic lengths."""
    symbols = {name: mil.get_new_symbol() for name in form.dynamic}

    def leading(shape: tuple[int, ...], rank: int) -> list[Any]:
        out: list[Any] = list(shape[:-2])
        if "batch" in symbols and len(shape) == rank and shape[0] == form.query[0] != 1:
            out[0] = symbols["batch"]
        return out

    length = symbols.get("length", form.query[-2])
    keys = symbols.get("keys", form.key[-2])
    rank = len(form.query)
    shapes = {
        "q": [*leading(form.query, rank), length, form.query[-1]],
        "k": [*leading(form.key, rank), keys, form.key[-1]],
        "v": [*leading(form.value, rank), keys, form.value[-1]],
    }
    dtypes = dict.fromkeys(shapes, form.dtype)
    if form.mask is not None:
        rows = list(form.mask[-2:-1])
        if rows and (rows[0] != 1 or "mask" in symbols):
            rows = [symbols.get("mask", length)]
        shapes["mask"], dtypes["mask"] = [*leading(form.mask, rank), *rows, keys], form.mask_dtype
    if form.inside:
        shapes["go"], dtypes["go"] = [1], "float32"
    return {
        name: mb.placeholder(shape=tuple(shape), dtype=_TYPES[dtypes[name]])
        for name, shape in shapes.items()
    }


def sliced(form: Form, sliced_q: Any) -> Any:
    """The program of a form after a sliced-Q pass.

    Raises DidNotFireError if the pass says, or the program shows, that nothing was sliced.
    """
    program = fused(form)
    log = sliced_q.log = Log() if isinstance(sliced_q, SlicedQ) else None
    sliced_q(program)
    program.validate()
    if log is not None and not log.fired:
        raise DidNotFireError(str(log))
    if log is None and ATTENTION in op_types(program.functions["main"]):
        raise DidNotFireError(f"{form}: the fused op is still there")
    return program


def op_types(block: Any) -> list[str]:
    """The kinds of all ops of a block and of the blocks inside it."""
    out = []
    for op in block.operations:
        out.append(op.op_type)
        for inner in op.blocks:
            out += op_types(inner)
    return out


def shipped(min_seq_length: int, divider: int) -> Any:
    """The pass of coremltools, with these options."""
    out = PASS_REGISTRY[SHIPPED]
    out.min_seq_length, out.seq_length_divider = min_seq_length, divider
    return out


def own(min_seq_length: int | None, divider: int, kind: type[SlicedQ] = SlicedQ) -> SlicedQ:
    """The pass of this package, or a defective version of it, with these options."""
    out = kind()
    out.min_seq_length, out.seq_length_divider = min_seq_length, divider
    return out


def model(program: Any) -> Any:
    """A program as a Core ML model (`MLModel`), neither compiled nor loaded.

    The default pipeline and the backend's passes run over it.  Shapes must be known.
    """
    with hushed():
        return ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=ct.precision.FLOAT32,  # as written: no op is cast
            skip_model_load=True,
        )


def arrays(form: Form, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> dict[str, Any]:
    """The inputs of a form's program, by name."""
    inputs = {"q": q, "k": k, "v": v}
    if mask is not None:
        inputs["mask"] = mask
    if form.inside:
        inputs["go"] = torch.ones(1)
    return {name: x.detach().contiguous().numpy() for name, x in inputs.items()}


def run(program: Any, form: Form, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """The output of a form's program, (…, L, EV), from the interpreter."""
    given = arrays(form, q, k, v, mask)
    return torch.from_numpy(np.asarray(_prepared(program).run(given)["out"]))


@lru_cache(maxsize=512)  # as many as are kept sliced
def _prepared(program: Any) -> interpreter.Interpreter:
    """The interpreter of a program, which is prepared once."""
    return interpreter.Interpreter(program)
