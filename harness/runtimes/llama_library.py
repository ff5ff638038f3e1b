"""The C API of llama.cpp, called in the shared library of the `xllamacpp` wheel.

The wheel wraps llama.cpp's server, but its shared library also exports the whole C API, which is
what most programs that embed llama.cpp call.  The structs below are those of ``llama.h`` at the
pinned version.  Their layout is not stable between versions, so before anything is passed to the
library, `load` compares the defaults that it fills in with those of the header, field by field.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_float,
    c_int,
    c_int8,
    c_int32,
    c_size_t,
    c_ubyte,
    c_uint32,
    c_void_p,
)
from functools import cache
from importlib import metadata, util

PACKAGE = "xllamacpp"

#: Spare room after the last known field, so that a longer struct still fits.
_ROOM = [("_room", c_ubyte * 64)]


class LlamaError(Exception):
    """llama.cpp cannot do what was asked; the message says what that was and what it answered."""


class ModelParams(Structure):
    """``llama_model_params``."""

    _fields_ = [
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int),
        ("load_mode", c_int),
        ("lazy_mode", c_int),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
        *_ROOM,
    ]


class ContextParams(Structure):
    """``llama_context_params``."""

    _fields_ = [
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int),
        ("rope_scaling_type", c_int),
        ("pooling_type", c_int),
        ("attention_type", c_int),
        ("flash_attn_type", c_int),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int),
        ("type_v", c_int),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("reserved", c_void_p),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        *_ROOM,
    ]


class Batch(Structure):
    """``llama_batch``."""

    _fields_ = [
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    ]


#: Values of llama.cpp's enums in the pinned version.
LOAD_MODE_NONE = 0
FLASH_ATTENTION: Mapping[str, int] = {"auto": -1, "off": 0, "on": 1}
CACHE_TYPES: Mapping[str, int] = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}

_MODEL_DEFAULTS = {
    **{name: 0 for name, *_ in ModelParams._fields_[:-1]},
    **{"n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "lazy_mode": 1},
    "use_extra_bufts": 1,
}
_CONTEXT_DEFAULTS = {
    **{name: 0 for name, *_ in ContextParams._fields_[:-1]},
    **{"n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1},
    **{"n_outputs_max_per_seq": 1, "n_threads": 4, "n_threads_batch": 4},
    **dict.fromkeys(("rope_scaling_type", "pooling_type", "attention_type"), -1),
    **dict.fromkeys(("flash_attn_type", "defrag_thold"), -1),
    **{f"yarn_{name}": -1 for name in ("ext_factor", "attn_factor", "beta_fast", "beta_slow")},
    **{"type_k": 1, "type_v": 1},
    **dict.fromkeys(("offload_kqv", "no_perf", "op_offload", "swa_full"), 1),
}

LogCallback = CFUNCTYPE(None, c_int, c_char_p, c_void_p)

_P = c_void_p
#: name: (result, arguments).  The last five are methods of C++ classes: `this` comes first.
_PROTOTYPES: Mapping[str, tuple[object, list[object]]] = {
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [LogCallback, _P]),
    "llama_model_default_params": (ModelParams, []),
    "llama_context_default_params": (ContextParams, []),
    "llama_model_load_from_file": (_P, [c_char_p, ModelParams]),
    "llama_model_free": (None, [_P]),
    "llama_init_from_model": (_P, [_P, ContextParams]),
    "llama_free": (None, [_P]),
    "llama_n_ctx_seq": (c_uint32, [_P]),
    "llama_decode": (c_int32, [_P, Batch]),
    "llama_get_logits_ith": (POINTER(c_float), [_P, c_int32]),
    "llama_get_memory": (_P, [_P]),
    "llama_memory_clear": (None, [_P, c_bool]),
    "llama_memory_seq_rm": (c_bool, [_P, c_int32, c_int32, c_int32]),
    "llama_memory_seq_pos_min": (c_int32, [_P, c_int32]),
    "llama_memory_seq_pos_max": (c_int32, [_P, c_int32]),
    "_ZNK14llama_kv_cache12size_k_bytesEv": (c_size_t, [_P]),
    "_ZNK14llama_kv_cache12size_v_bytesEv": (c_size_t, [_P]),
    "_ZNK14llama_kv_cache10total_sizeEv": (c_size_t, [_P]),
    "_ZNK19llama_kv_cache_iswa8get_baseEv": (_P, [_P]),
    "_ZNK19llama_kv_cache_iswa7get_swaEv": (_P, [_P]),
}


@cache
def load() -> ctypes.CDLL:
    """The initialised library, with its prototypes set.

    Raises LlamaError if the wheel is not installed, or if its version does not fit these structs.
    """
    spec = util.find_spec(f"{PACKAGE}.{PACKAGE}")
    if spec is None or spec.origin is None:
        raise LlamaError(f"{PACKAGE} is not installed")
    library = ctypes.CDLL(spec.origin)
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(library, name, None)
        if function is None:
            raise LlamaError(f"{_release()} does not export {name}")
        function.restype, function.argtypes = result, arguments
    require_layout(library.llama_model_default_params(), _MODEL_DEFAULTS)
    require_layout(library.llama_context_default_params(), _CONTEXT_DEFAULTS)
    library.llama_backend_init()
    return library


def require_layout(defaults: Structure, documented: Mapping[str, int]) -> None:
    """Raise LlamaError naming the first field whose default is not the documented one."""
    for name, want in documented.items():
        got = getattr(defaults, name) or 0
        if got != want:
            raise LlamaError(
                f"{_release()} has another {type(defaults).__name__} than "
                f"the one defined here: the default of {name} is {want}, the library has {got}"
            )


def _release() -> str:
    """The wheel's name and version, for messages."""
    try:
        return f"{PACKAGE} {metadata.version(PACKAGE)}"
    except metadata.PackageNotFoundError:
        return PACKAGE


def vtable(name: str) -> int:
    """The first word of every object of a C++ class; `name` is the class's mangled name."""
    table = c_void_p.in_dll(load(), f"_ZTV{name}")
    return ctypes.addressof(table) + 2 * ctypes.sizeof(c_void_p)  # skip offset and type info
