"""Faults planted in what the released runtimes are given: the checks must see each of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.cases.case import parse
from harness.cases.models import PUBLISHED, Model
from harness.checks import run_check
from harness.results.finding import Finding, Status
from harness.runtimes import gemma3, gguf_file, llama_sequences
from harness.runtimes.llama_context import LlamaContext, LlamaModel, Options
from harness.runtimes.llama_library import LlamaError
from harness.subjects.llama_cpp import decoder as llama_cpp
from harness.subjects.llama_cpp import shared as llama_cpp_shared
from harness.subjects.llama_cpp.decoder import LlamaCppSubject, LlamaDecoder
from harness.subjects.llama_cpp.shared import Shared, SharedDecoder
from harness.subjects.mlx import decoder as mlx_decoder
from harness.subjects.mlx.decoder import MlxSubject
from harness.subjects.mlx.rotating import Rotating

pytestmark = pytest.mark.needs("xllamacpp", "mlx_lm")


def checked(subject: type[Any], check: str, case: str) -> Finding:
    return run_check(subject, check, parse(case))


@pytest.fixture
def _fresh() -> Any:
    """Models are cached by geometry: a spoilt one must not outlive its test."""
    for kept in (llama_cpp.loaded, mlx_decoder.built):
        kept.cache_clear()
    yield
    for kept in (llama_cpp.loaded, mlx_decoder.built):
        kept.cache_clear()


def wider(model: Model) -> Model:
    return replace(model, window=(model.window or 0) + 1)


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize("check", ["visibility", "values"])
def test_a_gguf_with_one_key_more_is_seen_in_llama_cpp(
    check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = "gemma3.sliding/chunk-w/float32/b1"
    assert checked(LlamaCppSubject, check, case).status is Status.PASS
    llama_cpp.loaded.cache_clear()
    write = gguf_file.write_weights
    monkeypatch.setattr(gguf_file, "write_weights", lambda model, *rest: write(wider(model), *rest))
    found = checked(LlamaCppSubject, check, case)
    assert (found.status, found.first_bad) == (Status.FAIL, 8)


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize("check", ["visibility", "values"])
def test_a_window_with_one_key_more_is_seen_in_mlx(
    check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = "gemma3.sliding/chunk-w/float32/b1"
    assert checked(MlxSubject, check, case).status is Status.PASS
    mlx_decoder.built.cache_clear()
    build = mlx_decoder.built
    monkeypatch.setattr(
        mlx_decoder, "built", lambda model, vocab, seed: build(wider(model), vocab, seed)
    )
    found = checked(MlxSubject, check, case)
    assert (found.status, found.first_bad) == (Status.FAIL, 8)


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize("subject", [LlamaCppSubject, MlxSubject])
def test_other_weights_are_seen(subject: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference is not the runtime's own: flipping one layer's key projection is noticed."""
    spoil = "blk.0.attn_k.weight" if subject is LlamaCppSubject else "layers.0.self_attn.k_proj"

    def spoilt(export: Any) -> Any:
        def other(weights: gemma3.Gemma3) -> dict[str, Tensor]:
            return {
                name: tensor.flip(0) if spoil in name else tensor
                for name, tensor in export(weights).items()
            }

        return other

    for name in ("gguf", "checkpoint"):
        monkeypatch.setattr(gemma3.Gemma3, name, spoilt(getattr(gemma3.Gemma3, name)))
    assert checked(subject, "values", "gemma3/prefill-3w+5/float32/b1").status is Status.FAIL


def test_positions_that_stall_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = LlamaDecoder.feed

    class Stalling(LlamaDecoder):
        def feed(self, tokens: Tensor) -> Tensor:
            logits = feed(self, tokens)
            if self.length == 24:  # as if a token had not been counted
                llama_sequences.forget(self.context, 0, 23)
                self.length = 23
            return logits

    monkeypatch.setattr(LlamaCppSubject, "decoder", Stalling)
    found = checked(LlamaCppSubject, "values", "gemma3/chunk-4/float32/b1")
    assert (found.status, found.first_bad) == (Status.FAIL, 24)


def test_sequences_that_mix_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = llama_sequences.decode

    def mixed(context: Any, tokens: Tensor, start: int, sequences: Any, vocab: int) -> Tensor:
        return decode(context, tokens.roll(1, 0), start, sequences, vocab)

    monkeypatch.setattr(llama_sequences, "decode", mixed)
    assert checked(LlamaCppSubject, "values", "gemma3/turns/float32/b3").status is Status.FAIL


def test_the_neighbour_is_what_breaks_a_rewind(monkeypatch: pytest.MonkeyPatch) -> None:
    case = "gemma3/rewind-3-of-long/float32/b1"
    beside = checked(Shared, "rewind", case)
    assert (beside.status, beside.first_bad) == (Status.FAIL, 25)
    monkeypatch.setattr(SharedDecoder, "_neighbour_speaks", lambda _self: None)
    assert checked(Shared, "rewind", case).status is Status.PASS
    assert llama_cpp_shared.CELLS > 28  # by itself the conversation never fills them


def test_kept_tokens_are_lost_by_several_at_once_only() -> None:
    alone = checked(Rotating, "visibility", "llama3-sink4/decode-3wraps/float32/b1")
    at_once = checked(Rotating, "visibility", "llama3-sink4/prefill-3w+5/float32/b1")
    assert alone.status is Status.PASS
    assert (at_once.status, at_once.first_bad) == (Status.FAIL, 12)


def test_a_log_that_contradicts_the_library_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    gguf_file.write_geometry(PUBLISHED["gemma3-1b"], path)
    with LlamaModel(path, allocate=False) as model, LlamaContext(model, Options(2048)) as context:
        assert context.caches()
        context.log[:] = [re.sub(r"K \(f16\): +", "K (f16): 9", line) for line in context.log]
        with pytest.raises(LlamaError, match="the log says"):
            context.caches()


def test_a_file_that_llama_cpp_cannot_load_says_why(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF, but no more of it")
    with pytest.raises(LlamaError, match=r"broken\.gguf cannot be loaded: .+"):
        LlamaModel(path)
    with pytest.raises(LlamaError, match=r"absent\.gguf cannot be loaded"):
        LlamaModel(tmp_path / "absent.gguf")


def test_what_llama_cpp_refuses_to_decode_names_the_batch() -> None:
    case = parse("gemma3/chunk-4/float32/b1")
    decoder, beyond = LlamaCppSubject().open(case), torch.full((1, 1), case.vocab)
    with pytest.raises(ValueError, match="token ids must be in"):
        decoder.feed(beyond)
    with pytest.raises(llama_sequences.DecodeError, match=r"llama_decode returned -1 for 1 x 1"):
        llama_sequences.decode(decoder.context, beyond, 0, [0], case.vocab)
