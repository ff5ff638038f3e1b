"""Writes `harness/estimate/decoders/fields.json` from the config classes of transformers.

python suites/meta/support/decoder_fields.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tiny_decoders import config_class, decoder_types, default_fields, sub_configs

from harness.estimate.decoders.table import READ, TABLE

#: Keys under which a config holds that of its decoder.
_INSIDE = ("text_config", "decoder", "generator", "thinker_config", "llm_config")


def main() -> None:
    TABLE.write_text(text(), encoding="utf-8")


def text() -> str:
    """The content of the table, one type a line."""
    import transformers

    rows = {kind.model_type: row(kind) for kind in classes()}
    lines = [f'"{name}": {json.dumps(rows[name], sort_keys=True)}' for name in sorted(rows)]
    inside = ",\n".join(lines)
    return f'{{"transformers": "{transformers.__version__}",\n"types": {{\n{inside}\n}}}}\n'


def classes() -> Iterator[Any]:
    """The config classes of all decoder types, and of the decoders inside them."""
    waiting: list[Any] = [config_class(kind) for kind in decoder_types()]
    seen: set[str] = set()
    while waiting:
        kind = waiting.pop()
        if kind.model_type in seen:
            continue
        seen.add(kind.model_type)
        yield kind
        waiting += [inner for key, inner in sub_configs(kind).items() if key in _INSIDE]


def row(kind: Any) -> dict[str, Any]:
    """What the table holds of a class."""
    out: dict[str, Any] = {}
    names = {k: v for k, v in getattr(kind, "attribute_map", {}).items() if k in READ and k != v}
    fields = default_fields(kind)
    common = {own: name for name, own in names.items()}
    plain = fields | {common.get(key, key): value for key, value in fields.items()}
    defaults = {key: value for key, value in plain.items() if key in READ and _small(value)}
    inner = next(((k, c) for k, c in sub_configs(kind).items() if k in _INSIDE), None)
    if names:
        out["names"] = names
    if defaults:
        out["defaults"] = defaults
    if inner:
        out["text"] = [inner[0], inner[1].model_type]
    return out


def _small(value: object) -> bool:
    """True for what a config.json may hold of a geometry; nested configs are not."""
    if isinstance(value, list | tuple):
        return all(_small(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


if __name__ == "__main__":
    main()
