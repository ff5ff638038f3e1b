"""A cache's bad updates, and what each stands for."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.checks.common import device_of, new_cache, on_device, op_shape, stored_dtype
from harness.checks.drive import cache_op
from harness.checks.op_reference import OpReference, op_reference
from harness.checks.refusal.attempts import Expected, Misuse, row_problem
from harness.contract import CacheSubject, LayerCache
from harness.law import Layer
from harness.reference import oracle
from harness.reference.inputs import Inputs, random


def bad_updates(k: Tensor, v: Tensor) -> Iterator[Misuse]:
    """Updates that a cache made for `k` and `v` (B, H, t, D) was not made for.

    Keys and values of different lengths are not among them: both are projections of one input, and
    a cache that concatenates cannot notice.
    """
    other = torch.float16 if k.dtype != torch.float16 else torch.float32
    wider = tuple(torch.cat((x, x[..., :1]), -1) for x in (k, v))
    yield Misuse("rank 3", (k[0], v[0]))
    yield Misuse(f"dtype {other}", (k.to(other), v.to(other)))
    yield Misuse("dtype torch.bfloat16", (k.bfloat16(), v.bfloat16()))
    yield Misuse("integers", (k.long(), v.long()))
    yield Misuse("another batch", (torch.cat((k, k)), torch.cat((v, v))))
    yield Misuse("another number of heads", (torch.cat((k, k), 1), torch.cat((v, v), 1)))
    yield Misuse("another head_dim", (k[..., :-1], v[..., :-1]))
    yield Misuse("a wider head_dim", wider)
    yield Misuse(f"only values of dtype {other}", (k, v.to(other)))
    yield Misuse("only values of another batch", (k, torch.cat((v, v))))
    yield Misuse("only values of another head_dim", (k, v[..., :-1]))
    if k.shape[0] > 1:
        yield Misuse("one row of the batch", (k[:1], v[:1]))
    if k.shape[1] > 1:
        yield Misuse("one head", (k[:, :1], v[:, :1]))


class CacheBody:
    """`Body` of one layer's cache."""

    def __init__(self, subject: CacheSubject, case: Case, i: int, layer: Layer) -> None:
        self.subject, self.case, self.layer = subject, case, layer
        self.where = f"{layer}, "
        self.shape = shape = op_shape(case, i)
        self.x = random(case, case.schedule.length, 2 * shape.n_kv_heads, shape.n_kv_heads).to(
            shape.dtype
        )
        spans = case.schedule.spans()
        half = len(spans) // 2
        self.before, self.after = spans[:half], spans[half:]
        self.at = spans[half][0]  # positions that are held where the bad call is made

    def start(self) -> CacheRun:
        return CacheRun(self)

    def misuses(self) -> list[Misuse]:
        left = self.case.schedule.length - self.at
        found: list[Misuse] = []
        for t in sorted({1, max(1, min(3, left - 1))}, reverse=True):
            _, k, v = self.x.span(self.at, self.at + t)
            tokens = " of one token" if t == 1 else ""
            found += [Misuse(f"{bad.what}{tokens}", bad.handed) for bad in bad_updates(k, v)]
        return found

    def good(self) -> OpReference:
        return self._reference(self.x, self.at, self.case.schedule.length)

    def _reference(self, x: Inputs, start: int, end: int) -> OpReference:
        mask = self.layer.mask(start, end - start, end)
        if start == end:
            return OpReference(x.q[:, :, :0].double(), torch.empty(0, dtype=torch.float64))
        q, k, v = x.q[:, :, start:end], x.k[:, :, :end], x.v[:, :, :end]
        return op_reference(q, k, v, mask, stored_dtype(self.subject))

    def meaning(self, bad: Misuse) -> Expected | None:
        end = self.at + max(t.shape[-2] for t in bad.handed)
        try:
            taken = self._with(bad.handed, end)
        except RuntimeError:
            return None
        return Expected(
            self._reference(taken, self.at, end),
            self._reference(taken, end, self.case.schedule.length),
        )

    def _with(self, handed: tuple[Tensor, ...], end: int) -> Inputs:
        """The inputs with what the bad call was handed at its positions.

        Raises RuntimeError where that does not broadcast.
        """
        x = self.x.clone()
        for whole, part in zip((x.k, x.v), handed, strict=True):
            whole[:, :, self.at : end] = part
        return x

    def wrong(self, bad: Misuse, answer: object, expected: OpReference) -> str:
        del bad
        if not (isinstance(answer, tuple) and len(answer) == 3):
            return f"update() returned {type(answer).__name__} in place of (keys, values, mask)"
        t = expected.exact.shape[2]
        try:
            keys, values = (x.cpu().to(self.x.q.dtype) for x in answer[:2])
            rows = oracle.attention(
                self.x.q[:, :, self.at : self.at + t], keys, values, answer[2].cpu()
            )
        except Exception as error:
            return f"its answer cannot be used: {type(error).__name__}: {error}"
        return row_problem(rows, expected)


class CacheRun:
    """`Run` of one layer's cache."""

    def __init__(self, body: CacheBody) -> None:
        self.body = body
        self.cache = new_cache(body.subject, body.layer, body.shape)
        self.step = cache_op(self.cache, device_of(body.subject))
        self.taken = 0

    @property
    def holder(self) -> LayerCache:
        return self.cache

    def head(self) -> None:
        for a, b in self.body.before:
            self._step(a, b)

    def misuse(self, bad: Misuse) -> object:
        answer = self.cache.update(*on_device(self.body.subject, *bad.handed))
        self.taken = max(t.shape[-2] for t in bad.handed)
        return answer

    def tail(self) -> Tensor:
        """The positions that are left, by the same steps; a taken call has used up some."""
        rows, start = [], self.body.at + self.taken
        for a, b in self.body.after:
            if b > start:
                rows.append(self._step(max(a, start), b))
        return torch.cat([self.body.x.q[:, :, :0], *rows], 2)

    def _step(self, a: int, b: int) -> Tensor:
        return self.step(*self.body.x.span(a, b))
