"""A decoder's bad tokens, and what each stands for."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.checks.bounds import reference_for
from harness.checks.drive import open_decoder, tokens_for
from harness.checks.op_reference import OpReference
from harness.checks.refusal.attempts import Expected, Misuse, row_problem
from harness.contract import Decoder, Subject


def bad_tokens(good: Tensor, vocab: int) -> list[Misuse]:
    """Tokens other than the (B, t) int64 below `vocab` that a decoder was opened for."""
    return [
        Misuse("tokens of rank 1", (good[0],)),
        Misuse("float tokens", (good.float(),)),
        Misuse("another batch", (torch.cat((good, good)),)),
        Misuse("a token id past the vocabulary", (torch.full_like(good, vocab),)),
        Misuse("a negative token id", (torch.full_like(good, -1),)),
    ]


class DecoderBody:
    """`Body` of a whole decoder."""

    where = ""

    def __init__(self, subject: Subject, case: Case) -> None:
        self.subject, self.case = subject, case
        self.tokens = tokens_for(case)
        spans = case.schedule.spans()
        half = len(spans) // 2
        self.before, self.after = spans[:half], spans[half:]
        self.at = spans[half][0]

    def start(self) -> DecoderRun:
        return DecoderRun(self)

    def misuses(self) -> list[Misuse]:
        left = self.tokens.shape[1] - self.at
        good = self.tokens[:, : max(1, min(2, self.case.max_chunk, left - 1))]
        one = [Misuse(f"{b.what}, one token", b.handed) for b in self._ids(good[:, :1])]
        return bad_tokens(good, self.case.vocab) + one

    def _ids(self, good: Tensor) -> list[Misuse]:
        """Those of which one token may be the matter: decode steps have their own path."""
        return [b for b in bad_tokens(good, self.case.vocab) if "token id" in b.what]

    def good(self) -> OpReference:
        return self._reference(self.tokens, self.at, self.tokens.shape[1])

    def _reference(self, tokens: Tensor, start: int, end: int) -> OpReference:
        decoder = open_decoder(self.subject, self.case)
        reference = reference_for(self.subject, decoder, self.case, tokens)
        return OpReference(reference.exact[:, start:end], reference.bound[start:end])

    def meaning(self, bad: Misuse) -> Expected | None:
        (handed,) = bad.handed
        end = self.at + handed.shape[-1]
        ids = handed.long()
        if bool(((ids < 0) | (ids >= self.case.vocab)).any()):
            return None
        tokens = self.tokens.clone()
        try:
            tokens[:, self.at : end] = ids
        except RuntimeError:
            return None
        return Expected(
            self._reference(tokens, self.at, end),
            self._reference(tokens, end, tokens.shape[1]),
        )

    def wrong(self, bad: Misuse, answer: object, expected: OpReference) -> str:
        del bad
        if not isinstance(answer, Tensor):
            return f"feed() returned {type(answer).__name__}"
        return row_problem(answer, expected)


class DecoderRun:
    """`Run` of a whole decoder."""

    def __init__(self, body: DecoderBody) -> None:
        self.body = body
        self.decoder = open_decoder(body.subject, body.case)
        self.taken = 0

    @property
    def holder(self) -> Decoder:
        return self.decoder

    def head(self) -> None:
        for a, b in self.body.before:
            self.decoder.feed(self.body.tokens[:, a:b])

    def misuse(self, bad: Misuse) -> object:
        answer = self.decoder.feed(*bad.handed)
        self.taken = bad.handed[0].shape[-1]
        return answer.cpu().clone() if isinstance(answer, Tensor) else answer

    def tail(self) -> Tensor:
        """The tokens that are left, by the same steps; a taken call has used up some."""
        rows, start = [], self.body.at + self.taken
        for a, b in self.body.after:
            if b > start:
                rows.append(self.decoder.feed(self.body.tokens[:, max(a, start) : b]).cpu().clone())
        return torch.cat(rows, 1) if rows else torch.empty(0)
