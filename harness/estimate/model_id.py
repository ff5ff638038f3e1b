"""Geometry from a model's name alone, which matches only if every word of the name agrees.

A name is a hub id, an Ollama tag or a file name.  A merge, an upscaled or pruned version, or a
finetune that also names another base may have another geometry, so such a name is refused.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from harness.cases.models import PUBLISHED
from harness.estimate.fields import quoted
from harness.estimate.geometry import Fact, Geometry, GeometryError, Sure, from_model


@dataclass(frozen=True)
class Published:
    """One released model.

    row: its name in the model table.  hub: its id on the Hugging Face hub.
    words: what a name of this model must contain, in this order, the first two adjacent.
    billions, active: billions of parameters, in all and active per token, as published.  Some
    estimators use nothing else.
    also: words that a name of this model may contain as well, although they look like a size.
    """

    row: str
    hub: str
    words: tuple[str, ...]
    billions: float
    active: float | None = None
    also: frozenset[str] = frozenset()


def _gemma(version: str, size: str, billions: float, active: float | None = None) -> Published:
    suffix = f"-A{active:g}B" if active else ""
    label = size.upper() if version in {"3n", "4"} else size  # as the hub writes them
    row = f"gemma{version}-{size}"
    also = frozenset({f"a{active:g}b"} if active else ())
    hub = f"google/gemma-{version}-{label}{suffix}-it"
    return Published(row, hub, ("gemma", version, size), billions, active, also)


RELEASED: tuple[Published, ...] = (
    *(_gemma("2", f"{b}b", b) for b in (2, 9, 27)),
    *(_gemma("3", f"{b}b", b) for b in (1, 4, 12, 27)),
    _gemma("3n", "e2b", 5),
    _gemma("3n", "e4b", 8),
    _gemma("4", "e2b", 5.1),
    _gemma("4", "e4b", 8),
    _gemma("4", "26b", 26, 4),
    _gemma("4", "31b", 31),
    Published("gpt-oss-20b", "openai/gpt-oss-20b", ("gpt", "oss", "20b"), 21, 3.6),
    Published("gpt-oss-120b", "openai/gpt-oss-120b", ("gpt", "oss", "120b"), 117, 5.1),
    Published("command-r7b", "CohereLabs/c4ai-command-r7b-12-2024", ("command", "r7b"), 8),
    Published("mistral-7b-v0.1", "mistralai/Mistral-7B-v0.1", ("mistral", "7b", "v0.1"), 7),
    Published("mistral-7b-v0.3", "mistralai/Mistral-7B-v0.3", ("mistral", "7b", "v0.3"), 7),
    Published(
        "llama4-scout",
        "meta-llama/Llama-4-Scout-17B-16E-Instruct",
        ("llama", "4", "scout"),
        109,
        17,
        frozenset({"17b", "16e"}),
    ),
    Published("llama3-8b", "meta-llama/Meta-Llama-3-8B", ("llama", "3", "8b"), 8),
    Published("phi3-mini-4k", "microsoft/Phi-3-mini-4k-instruct", ("phi", "3", "mini", "4k"), 3.8),
    Published("qwen2.5-7b", "Qwen/Qwen2.5-7B-Instruct", ("qwen", "2.5", "7b"), 7),
)

#: Words that name base models.
_BASES = frozenset(
    re.findall(
        r"\w+",
        """gemma llama mistral mixtral ministral nemo qwen qwq phi gpt oss command aya deepseek r1
        falcon yi olmo granite internlm glm chatglm nemotron smollm exaone bloom mpt starcoder
        minicpm kimi hunyuan ernie solar zephyr vicuna baichuan jamba mamba rwkv lfm2""",
    )
)
#: Words that mark a model as pruned, stacked, merged or extended, or as a companion of another
#: model (a draft model, a projector).
_REBUILT = frozenset(
    re.findall(
        r"\w+",
        """merge merged merges slerp ties dare passthrough franken frankenmerge frankenmoe upscaled
        upscale stacked selfmerge moe pruned prune reap minitron depth draft drafter eagle eagle3
        medusa mtp assistant mmproj projector embedding reranker yarn longrope longlora""",
    )
)
_SIZE = re.compile(r"[ae]?\d+(\.\d+)?[bm]|\d+x\d+(\.\d+)?b|\d+e")
_CONTEXT = re.compile(r"\d+[km]|1m")
_GLUED = re.compile(r"(gemma|llama|qwen|phi|mistral)(\d.*)")


def read(name: str) -> Geometry:
    """The published geometry of the model that `name` names.

    Raises GeometryError for an unknown model, with the nearest known names; for a name that fits
    two models; and for a name with a word that contradicts the known model, with that word.
    """
    words = _words(name)
    found = [(model, held) for model in RELEASED if (held := _match(model, words)) is not None]
    if not found:
        raise GeometryError(_unknown(name))
    if len(found) > 1:
        both = " and ".join(model.row for model, _ in found)
        raise GeometryError(
            f"{quoted(name, 200)}: names {both}; give a config.json or a .gguf file"
        )
    model, rest = found[0]
    if doubts := [word for word in rest if _contradicts(word, model)]:
        raise GeometryError(
            f"{quoted(name, 200)}: names {model.row}, but {quoted(doubts[0])} says that its "
            "geometry may differ; give a config.json or a .gguf file"
        )
    fact = Fact("geometry", model.row, f"model table, by the words of {name}", Sure.TABLE)
    return from_model(PUBLISHED[model.row], [fact])


def released(row: str) -> Published:
    """The released model in a row of the model table.  Raises KeyError if there is none."""
    return _BY_ROW[row]


_BY_ROW = {model.row: model for model in RELEASED}


def _words(name: str) -> list[str]:
    """The words of a name without its owner: gemma, 3 and 27b, for "gemma3:27b" for example."""
    last = name.strip().rstrip("/").rpartition("/")[2].lower().removesuffix(".gguf")
    out: list[str] = []
    for word in re.split(r"[^a-z0-9.]+", last):
        glued = _GLUED.fullmatch(word)
        out.extend(glued.groups() if glued else [word.strip(".")])
    return [word for word in out if word]


def _match(model: Published, words: list[str]) -> list[str] | None:
    """The words of a name that are not the model's own.

    None unless the model's own words are all there, in order.
    """
    want = model.words
    for start in range(len(words) - 1):
        if tuple(words[start : start + 2]) != want[:2]:
            continue
        rest, left = words[:start], list(want[2:])
        for word in words[start + 2 :]:
            if left and word == left[0]:
                left.pop(0)
            else:
                rest.append(word)
        if not left:
            return rest
    return None


def _contradicts(word: str, model: Published) -> bool:
    if word in model.also:
        return False
    return bool(word in _BASES | _REBUILT or _SIZE.fullmatch(word) or _CONTEXT.fullmatch(word))


def _unknown(name: str) -> str:
    known = {"-".join(_words(label)): m.row for m in RELEASED for label in (m.row, m.hub)}
    near = difflib.get_close_matches("-".join(_words(name)), known, n=6)
    rows = list(dict.fromkeys(known[label] for label in near))[:3]
    hint = f"; near: {', '.join(rows)}" if rows else ""
    return (
        f"unknown model {quoted(name, 200)}{hint}; give a config.json, a .gguf file, or one of: "
        f"{', '.join(_BY_ROW)}"
    )
