"""Sliced-Q attention as subjects: coremltools' own pass, our pass, and our torch operation.

A Core ML subject builds a MIL program for each call, runs the pass over it, checks that the pass
sliced it, and interprets the result.  One attention can be written in many forms, and a pass must
handle all of them; `form_of` gives each kind of call a form that occurs in practice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.contract import Unsupported
from harness.law import SCHEMES, Layer
from harness.schemes.validation import check_attention

if TYPE_CHECKING:
    from harness.subjects.coreml.sliced_q_programs import Form

#: Cases are short: with these, every query is sliced, into a few pieces of unequal length.
MIN_SEQ_LENGTH = 1
DIVIDER = 3

#: One model for each kind of layer, with windows that no piece is a multiple of.
_MODELS = frozenset(
    {"mistral", "mistral-w9", "mistral-w64", "gemma3", "llama3", "llama3-sink4", "llama4"}
)
_SCHEDULES = frozenset(
    {
        "prefill-w-1",
        "prefill-w",
        "prefill-w+1",
        "prefill-3w+5",
        "chunk-4",
        "chunk-w",
        "chunk-w+1",
        "ragged-primes",
        "prefill-then-decode",
        "decode-3wraps",
    }
)


def form_of(q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Form:
    """The form in which a call is written.  q, k, v (B, H, …), all with as many heads.

    | call | program |
    |---|---|
    | one query | a mask of one row, (S,) |
    | a whole prompt | known lengths, a boolean mask (L, S) |
    | a chunk after others | the query's length is known only at run time |
    | a full layer | the number of keys is known only at run time |
    | a layer with sinks | an additive mask (1, 1, L, S) |
    | a chunked layer | inside a branch of control flow |
    | several rows in the batch | the batch is known only at run time |
    | half precision | an additive mask in float32 |
    """
    from harness.subjects.coreml.sliced_q_programs import Form

    rows, keys = q.shape[2], k.shape[2]
    dtype = str(q.dtype).removeprefix("torch.")
    mask: tuple[int, ...] = (1, 1, rows, keys) if layer.sink else (rows, keys)
    additive = dtype if layer.sink else "bool"
    dynamic = {
        "keys": not layer.bounded,
        "length": 1 < rows < keys,
        "batch": q.shape[0] > 1,
    }
    return Form(
        query=tuple(q.shape),
        key=tuple(k.shape),
        value=tuple(v.shape),
        dtype=dtype,
        mask=(keys,) if rows == 1 else mask,
        mask_dtype="float32" if dtype == "float16" else additive,
        dynamic=frozenset(name for name, yes in dynamic.items() if yes),
        inside=layer.chunk is not None,
    )


class _Program:
    """Attention by a program built for each call, after a pass has run over it."""

    schemes = SCHEMES
    suite = "sliced_q"
    package = "coremltools"
    #: A program has no gradients, and no allocator that could report a peak.
    checks = frozenset({"visibility", "values", "purity", "refusal"})

    @staticmethod
    def covers(check: str, case: Case) -> bool:  # noqa: ARG004 - the contract's signature
        """A few schedules of a few models, in the precisions that Core ML supports."""
        return case.dtype != "bfloat16" and _is_planned(case)

    @staticmethod
    def make_pass() -> Any:
        raise NotImplementedError

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        check_attention(q, k, v)
        if q.dtype not in (torch.float32, torch.float16):
            raise Unsupported(f"Core ML has no attention in {q.dtype}")
        groups = q.shape[1] // k.shape[1]
        keys, values = (x.repeat_interleave(groups, dim=1) for x in (k, v))
        form = form_of(q, keys, values, layer)
        return self.answer(form, q, keys, values, _mask(form, layer))

    def answer(self, form: Form, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """The output of the form's sliced program, from the interpreter."""
        from harness.subjects.coreml.sliced_q_programs import run

        return run(_sliced(self.make_pass, form), form, q, k, v, mask)


class Shipped(_Program):
    """The pass of coremltools, ``common::scaled_dot_product_attention_sliced_q``."""

    name = "coremltools.sliced_q"

    @staticmethod
    def make_pass() -> Any:
        from harness.subjects.coreml.sliced_q_programs import shipped

        return shipped(MIN_SEQ_LENGTH, DIVIDER)


class Own(_Program):
    """Our own pass, `harness.schemes.sliced_q.mil_pass`."""

    name = "harness.sliced_q"

    @staticmethod
    def make_pass() -> Any:
        from harness.subjects.coreml.sliced_q_programs import own

        return own(MIN_SEQ_LENGTH, DIVIDER)


class Predict(Own):
    """The programs of `harness.sliced_q` that have known shapes, run by Core ML itself on macOS."""

    name = "harness.sliced_q.predict"
    checks = frozenset({"values"})

    @staticmethod
    def covers(check: str, case: Case) -> bool:
        """Whole prompts of windowed layers, whose shapes are all known."""
        return (
            case.batch == 1
            and case.model.name in {"mistral", "llama3-sink4"}
            and case.schedule.name.startswith("prefill-")
            and _Program.covers(check, case)
        )

    def answer(self, form: Form, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Core ML's output, on the CPU.  Raises Unsupported for dynamic shapes and off macOS."""
        from harness.mil.engines import Predicted, require_macos
        from harness.subjects.coreml.sliced_q_programs import arrays

        require_macos()
        if form.dynamic:
            raise Unsupported(f"predicted for known shapes only, got {form}")
        given = arrays(form, q, k, v, mask)
        given["mask"] = given["mask"].astype(given["q"].dtype)  # Core ML has no boolean inputs
        (out,) = Predicted(_model(self.make_pass, form)).predict(given).values()
        return torch.from_numpy(out).to(q.dtype)


class Torch:
    """Our torch operation, `harness.schemes.sliced_q.torch_graph`."""

    name = "harness.sliced_q.torch"
    schemes = SCHEMES
    suite = "sliced_q"

    @staticmethod
    def covers(check: str, case: Case) -> bool:
        """The same cases in every precision, also for gradients and the allocator's peak."""
        return _is_planned(case) or (check == "peak_bytes" and case.model.name in _MODELS)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        check_attention(q, k, v)
        n, keys = q.shape[2], k.shape[2]
        mask = layer.mask(keys - n, n, keys).to(q.device)
        # Imported here: its symbolic shapes would add half a second to every collection.
        from harness.schemes.sliced_q.torch_graph import sliced_attention

        return sliced_attention(q, k, v, mask, min_seq_length=MIN_SEQ_LENGTH, divider=DIVIDER)


def _is_planned(case: Case) -> bool:
    return case.schedule.name in _SCHEDULES and case.model.name in _MODELS


def _mask(form: Form, layer: Layer) -> Tensor:
    """The law's mask in the form's shape and dtype."""
    rows, keys = form.query[2], form.key[2]
    visible = layer.mask(keys - rows, rows, keys)
    assert form.mask is not None
    if form.mask_dtype == "bool":
        return visible.reshape(form.mask)
    added = torch.zeros(rows, keys, dtype=getattr(torch, form.mask_dtype))
    return added.masked_fill(~visible, -math.inf).reshape(form.mask)


@lru_cache(maxsize=32)
def _model(make_pass: Callable[[], Any], form: Form) -> Any:
    from harness.subjects.coreml.sliced_q_programs import model, sliced

    return model(sliced(form, make_pass()))


@lru_cache(maxsize=512)
def _sliced(make_pass: Callable[[], Any], form: Form) -> Any:
    """The sliced program of a form; kept, since many cases have the same form."""
    from harness.subjects.coreml.sliced_q_programs import sliced

    return sliced(form, make_pass())
