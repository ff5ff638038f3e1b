"""ExecuTorch's static-shape attention: `StaticAttention` fed by `StaticAttentionIOManager`.

It is driven as the release's own runners drive it (`run_static_llm.py`, and `prefill` and `decode`
of the manager): the graph has a fixed input length, the manager pads short inputs, all tokens of a
prompt go through one `prefill`, and one `decode` then takes one-token steps.  The harness feeds
chosen tokens where `decode` would feed the likeliest one, so it calls the manager's `_run_once`.

**Conventions** are converted here and nowhere else.  The release's cache length C counts the keys
*before* the chunk; a trained window of W keys, the query's own included, is C = W - 1.  1.4.1 then
states a law of its own: the query at p of a chunk that starts at s sees C + (p - s) + 1 keys, the
chunk so far and C keys before it.  `executorch.static*` are judged by the exact window, `….stated`
by that law, so that what breaks even that law shows separately.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from harness.cases.case import Case
from harness.cases.models import Model
from harness.cases.schedules import Schedule
from harness.contract import Unsupported
from harness.law import Layer
from harness.memory.storage import storage_bytes
from harness.subjects.executorch import body


class StaticAttentionDecoder:
    """One run of the static graph, its caches and masks held by the manager.

    A feed is one run of the graph; the release raises for a feed longer than the graph's input.
    """

    def __init__(self, case: Case, style: str, split: bool) -> None:
        body.claim_geometry(case.model)
        if case.model.window == 1:
            raise Unsupported(
                "a window of one key is a cache length of 0, which the release reserves for layers "
                "that have no cache at all"
            )
        self.case = case
        self.input_len = case.max_chunk
        # The manager slices the rotary table in padded chunks, past the end of the context.
        table = body.table_length(case.max_context + case.max_chunk)
        weights = (case.model, case.vocab, case.weights_seed)
        self.model = _static_model(*weights, case.dtype, table, split)
        self.manager = _manager(case, self.model, style, split)
        self._open_call: str | None = None

    @torch.no_grad()
    def feed(self, tokens: Tensor) -> Tensor:
        call = "decode" if tokens.shape[1] == 1 else "prefill"
        if call != self._open_call:
            self._begin_call()
        logits: Tensor = self.manager._run_once(self.model, tokens)[0]
        # Only a prompt's last chunk may be short: what follows it is a new call of the manager.
        full = tokens.shape[1] % self.input_len == 0
        self._open_call = call if call == "decode" or full else None
        return logits[:, : tokens.shape[1]]

    def _begin_call(self) -> None:
        """Set the causal mask inside the chunk, as `prefill` and `decode` do first."""
        manager = self.manager
        ones = torch.full((1, self.input_len, self.input_len), manager.mask_val)
        for mask in manager._masks.values():
            mask.set_input_mask(torch.triu(ones, diagonal=1))

    def reset(self) -> None:
        self.manager.reset()
        self._open_call = None

    def cache_bytes(self) -> list[int]:
        held: list[list[Tensor]] = [[] for _ in range(self.case.model.n_layers)]
        for caches in (self.manager.k_caches, self.manager.v_caches):
            for key, cache in caches.items():  # keys look like "l<layer>,h<head>"
                held[int(key.partition(",")[0][1:])].append(cache)
        return [storage_bytes(tensors) for tensors in held]

    def dense(self, tokens: Tensor, layers: Sequence[Layer] | None = None) -> Tensor:
        laws = self.case.model.layers if layers is None else layers
        return body.dense_logits(self.case, tokens, body.law_masks(laws, tokens.shape[1]))


class StatedStaticDecoder(StaticAttentionDecoder):
    """The same run, judged by the law that 1.4.1 states for itself."""

    def stated_masks(self, n: int) -> list[Tensor]:
        """One bool (n, n) mask per layer: C keys before the chunk and the chunk so far."""
        starts = torch.tensor(chunk_starts(self.case.schedule)[:n])[:, None]
        q, k = torch.arange(n)[:, None], torch.arange(n)[None, :]
        return [(k <= q) & (k >= starts - length) for length in cache_lens(self.case)]

    def dense(self, tokens: Tensor, layers: Sequence[Layer] | None = None) -> Tensor:
        if layers is not None:
            return super().dense(tokens, layers)
        return body.dense_logits(self.case, tokens, self.stated_masks(tokens.shape[1]))


def cache_lens(case: Case) -> list[int]:
    """The release's cache length of each layer: W - 1, or the whole context of a full layer."""
    return [
        case.max_context if layer.window is None else layer.window - 1
        for layer in case.model.layers
    ]


def chunk_starts(schedule: Schedule) -> list[int]:
    """For each position held at the end of a schedule, the first position of its chunk."""
    starts: list[int] = []
    for start, end in schedule.spans():
        starts[start:] = [start] * (end - start)
    return starts[: schedule.length]


@lru_cache(maxsize=64)
def _static_model(
    model: Model, vocab: int, seed: int, dtype: str, table: int, split: bool
) -> nn.Module:
    """The dense transformer with its attention made static, and with equal weights.

    It has no state (caches are inputs and outputs), so cases share it.
    """
    with body.quiet_import():
        from executorch.examples.models.llama.static_attention import (
            transform_attention_mha_to_static_attention,
        )
    dense = body.dense_model(model, vocab, seed, "float32", table)
    static = transform_attention_mha_to_static_attention(dense, split_mha=split, inplace=False)
    return body.in_precision(static.eval(), dtype).requires_grad_(False)


def _manager(case: Case, model: nn.Module, style: str, split: bool) -> Any:
    """The release's I/O manager with empty caches.

    With unsplit heads it is made from the configuration, as the runners do; with split heads from
    the module, the other way that the release offers.
    """
    with body.quiet_import():
        from executorch.examples.models.llama.static_attention import StaticAttentionIOManager
    source: Any = model
    if not split:
        table = case.max_context + case.max_chunk
        source = body.model_args(case.model, case.vocab, table, attention_type="static_mha")
    return StaticAttentionIOManager(
        source,
        case.max_chunk,
        cache_lens(case),
        batch_size=case.batch,
        dtype=getattr(torch, case.dtype),
        style=style,
    )


class _Static:
    """What the registered subjects have in common."""

    package = "executorch"
    dense_key = "executorch.body"
    schemes = frozenset({"full", "uniform", "interleaved"})
    style = "shift_pointer"
    split = False

    @staticmethod
    def covers(check: str, case: Case) -> bool:  # noqa: ARG004 - the contract's signature
        """Geometries that the released transformer takes; a window of 1 leaves no cache."""
        return body.fits(case.model) and case.model.window != 1

    def open(self, case: Case) -> StaticAttentionDecoder:
        """A manager with empty caches for `case`."""
        return StaticAttentionDecoder(case, self.style, self.split)

    def profile(self, case: Case) -> list[int]:
        """Bytes of each layer's cache: C slots of the KV heads only."""
        return [body.kv_bytes(case, length) for length in cache_lens(case)]


class Static(_Static):
    """`StaticAttention`, style shift_pointer: the newest keys are at the end of the cache."""

    name = "executorch.static"


class StaticSmart(_Static):
    """`StaticAttention`, style smart_mask: keys keep their slots, the mask opens the live ones."""

    name = "executorch.static.smart"
    style = "smart_mask"


class StaticSplit(_Static):
    """`StaticAttention` split by head (`split_mha`), as for accelerators without 4-D matmul."""

    name = "executorch.static.split"
    split = True


class _Stated(_Static):
    """A static subject judged by the law that the release states for itself."""

    schemes = frozenset({"uniform", "interleaved"})

    def open(self, case: Case) -> StatedStaticDecoder:
        return StatedStaticDecoder(case, self.style, self.split)


class StaticStated(_Stated):
    """`executorch.static`, judged by the law that the release states for itself."""

    name = "executorch.static.stated"


class StaticSmartStated(_Stated):
    """`executorch.static.smart`, judged by the law that the release states for itself."""

    name = "executorch.static.smart.stated"
    style = "smart_mask"
