"""Small planted subjects for the tests of single checks."""

from __future__ import annotations

from typing import Any

from harness.defects import DEFECTS
from harness.defects.base import DecoderSubjectOfTrimmed, DenseAttention, Trimmed, TrimmedSubject
from harness.reference.cache_decoder import CacheDecoder


def defect(name: str) -> type[Any]:
    """The planted defect of harness.defects that is called `defect.<name>`."""
    return next(d.subject for d in DEFECTS if d.name == f"defect.{name}")


def cache(planted: type[Trimmed], **members: object) -> type[Any]:
    """A subject whose caches are `planted`."""
    return type(planted.__name__, (TrimmedSubject,), {"cache": planted, **members})


def decoder(planted: type[CacheDecoder]) -> type[Any]:
    """A subject whose decoders are `planted`."""
    return type(planted.__name__, (DecoderSubjectOfTrimmed,), {"decoder": planted})


#: Correct subjects of each body.
CACHE, DECODER, ATTENTION = TrimmedSubject, DecoderSubjectOfTrimmed, DenseAttention
