"""Feed sequences of tokens to a llama.cpp context, and read the logits of every position."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from harness.runtimes import llama_library as native
from harness.runtimes.llama_context import LlamaContext, recorded


class DecodeError(Exception):
    """llama.cpp refused a batch; the message holds its return value and what it logged."""


def decode(
    context: LlamaContext, tokens: Tensor, start: int, sequences: Sequence[int], vocab: int
) -> Tensor:
    """Feed tokens (B, t) at positions start… of B sequences -> logits (B, t, vocab) float32.

    One call of ``llama_decode``.  Raises DecodeError if it refuses; the context is then as it was.
    """
    rows, t = tokens.shape
    batch, _alive = _batch(tokens, start, sequences)
    library = native.load()
    with recorded() as log:
        status = library.llama_decode(context.pointer, batch)
    if status:
        said = log[-1].strip() if log else "nothing"
        raise DecodeError(f"llama_decode returned {status} for {rows} x {t} tokens, logged: {said}")
    out = torch.empty(rows * t, vocab)
    for i in range(rows * t):
        logits = library.llama_get_logits_ith(context.pointer, i)
        ctypes.memmove(out[i].data_ptr(), logits, 4 * vocab)
    return out.view(rows, t, vocab)


def forget(context: LlamaContext, sequence: int, start: int) -> bool:
    """Remove a sequence's positions >= `start`; False if llama.cpp says that it cannot."""
    removed = native.load().llama_memory_seq_rm(context.memory, sequence, start, -1)
    return bool(removed)


def first_held(context: LlamaContext, sequence: int) -> int:
    """The first position from which every layer holds everything; -1 for an empty sequence."""
    return int(native.load().llama_memory_seq_pos_min(context.memory, sequence))


def clear(context: LlamaContext) -> None:
    """Forget all sequences; the buffers stay as they are."""
    native.load().llama_memory_clear(context.memory, False)


def _batch(
    tokens: Tensor, start: int, sequences: Sequence[int]
) -> tuple[native.Batch, tuple[object, ...]]:
    """A batch that asks for all logits, and the arrays it points to, to be kept alive."""
    rows, t = tokens.shape
    n = rows * t
    ids = (ctypes.c_int32 * n)(*tokens.flatten().tolist())
    positions = (ctypes.c_int32 * n)(*(list(range(start, start + t)) * rows))
    ones, wanted = (ctypes.c_int32 * n)(*[1] * n), (ctypes.c_int8 * n)(*[1] * n)
    names = (ctypes.c_int32 * rows)(*sequences)
    pointer = ctypes.POINTER(ctypes.c_int32)
    places = [
        ctypes.cast(ctypes.addressof(names) + 4 * row, pointer)
        for row in range(rows)
        for _ in range(t)
    ]
    of = (pointer * n)(*places)
    batch = native.Batch(n, ids, None, positions, ones, of, wanted)
    return batch, (ids, positions, ones, wanted, names, of)
