"""An attention operation's bad calls, and what each stands for."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.checks.common import on_device, op_shape
from harness.checks.op_reference import OpReference, op_reference
from harness.checks.refusal.attempts import Expected, Misuse, row_problem
from harness.contract import AttentionSubject
from harness.law import Layer
from harness.reference import oracle, tolerance
from harness.reference.inputs import random


def bad_calls(q: Tensor, k: Tensor, v: Tensor) -> list[Misuse]:
    """Calls with q (B, Hq, n, D), k and v (B, Hkv, n, D) that do not fit each other."""
    calls = [
        Misuse("more queries than keys", (torch.cat((q, q), 2), k, v)),
        Misuse("queries of rank 3", (q[0], k, v)),
        Misuse("keys of another batch", (q, torch.cat((k, k, k)), torch.cat((v, v, v)))),
        Misuse("keys and values of another dtype", (q, k.half(), v.half())),
        Misuse("keys and values in float64", (q, k.double(), v.double())),
        Misuse("keys of another head_dim", (q, k[..., :-1], v)),
        Misuse("keys of a wider head_dim", (q, torch.cat((k, k[..., :1]), -1), v)),
        Misuse("more keys than values", (q, k, v[:, :, :-1])),
        Misuse("more values than keys", (q, k[:, :, :-1], v)),
    ]
    if (q.shape[1] - 1) % k.shape[1]:
        calls.append(Misuse("query heads not a multiple of key heads", (q[:, :-1], k, v)))
    return calls


class OperationBody:
    """`Body` of a stateless operation, whose state, if any, is a mistake."""

    def __init__(self, subject: AttentionSubject, case: Case, i: int, layer: Layer) -> None:
        self.subject, self.layer = subject, layer
        self.where = f"{layer}, "
        shape, n = op_shape(case, i), case.schedule.length
        x = random(case, n, 2 * shape.n_kv_heads, shape.n_kv_heads).to(shape.dtype)
        self.q, self.k, self.v = x.span(0, n)
        self.at = n - max(
            1, n // 3
        )  # the good calls are of the last third: fewer queries than keys

    def start(self) -> OperationRun:
        return OperationRun(self)

    def misuses(self) -> list[Misuse]:
        return bad_calls(self.q, self.k, self.v)

    def good(self) -> OpReference:
        n = self.k.shape[2]
        mask = self.layer.mask(self.at, n - self.at, n)
        return op_reference(self.q[:, :, self.at :], self.k, self.v, mask)

    def meaning(self, bad: Misuse) -> Expected | None:
        q, k, v = bad.handed
        coarsest = max((q, k, v), key=lambda x: torch.finfo(x.dtype).eps).dtype
        q = q[None] if q.dim() == 3 else q
        n = k.shape[2]
        q = q[:, :, -n:]  # queries before position 0 see no key: there is no right answer
        if q.shape[1] % k.shape[1]:
            return None
        mask = self.layer.between(torch.arange(n - q.shape[2], n), torch.arange(n))
        try:
            # The inputs are what they are, the bound is that of the coarsest dtype among them.
            exact = oracle.attention64(q, k, v, mask)
            coarse = op_reference(q.to(coarsest), k.to(coarsest), v.to(coarsest), mask)
        except RuntimeError:
            return None
        rounded = tolerance.row_error(coarse.exact, exact)
        return Expected(OpReference(exact, coarse.bound + rounded), self.good())

    def wrong(self, bad: Misuse, answer: object, expected: OpReference) -> str:
        if not isinstance(answer, Tensor):
            return f"attend() returned {type(answer).__name__}"
        t, asked = expected.exact.shape[2], bad.handed[0].shape[-2]
        if answer.dim() == 4 and answer.shape[2] == asked > t:
            early, answer = answer[:, :, :-t], answer[:, :, -t:]
            if not (early.isnan() | (early == 0)).all():
                return "it answers queries that see no key with other than NaN or zeros"
        elif asked > t:
            return f"it answers {tuple(answer.shape)} to {asked} queries"
        return row_problem(answer, expected)


class OperationRun:
    """`Run` of a stateless operation: the good call before and after is the same one."""

    def __init__(self, body: OperationBody) -> None:
        self.body = body

    def head(self) -> None:
        self.tail()

    def misuse(self, bad: Misuse) -> object:
        return self._attend(*bad.handed)

    def tail(self) -> Tensor:
        body = self.body
        return self._attend(body.q[:, :, body.at :], body.k, body.v).detach()

    def _attend(self, *handed: Tensor) -> Tensor:
        q, k, v = on_device(self.body.subject, *handed)
        answer = self.body.subject.attend(q, k, v, self.body.layer)
        return answer.cpu() if isinstance(answer, Tensor) else answer
