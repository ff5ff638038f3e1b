"""Open and close llama.cpp's models and contexts, and read the sizes of their caches."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.runtimes import llama_library as native
from harness.runtimes.llama_library import LlamaError
from harness.runtimes.llama_log import LoggedCache, read


@dataclass(frozen=True)
class Options:
    """Fields of ``llama_context_params``, mostly by name, with the command line's defaults.

    swa_full: sliding layers get as many cells as full ones.  unified: ``kv_unified``, sequences
    share one buffer of cells.
    flash: "auto", "on" or "off".  k_type, v_type: keys of `llama_library.CACHE_TYPES`.
    """

    n_ctx: int
    n_batch: int = 2048
    n_ubatch: int = 512
    n_seq_max: int = 1
    unified: bool = False
    swa_full: bool = False
    flash: str = "auto"
    k_type: str = "f16"
    v_type: str = "f16"

    def fill(self, params: native.ContextParams) -> None:
        """Set the fields of the struct."""
        params.n_ctx, params.n_batch, params.n_ubatch = self.n_ctx, self.n_batch, self.n_ubatch
        params.n_seq_max, params.kv_unified = self.n_seq_max, self.unified
        params.n_outputs_max_per_seq = self.n_batch
        params.swa_full = self.swa_full
        params.flash_attn_type = native.FLASH_ATTENTION[self.flash]
        params.type_k = native.CACHE_TYPES[self.k_type]
        params.type_v = native.CACHE_TYPES[self.v_type]
        # One thread sums in one order, so that equal runs give equal bits.
        params.n_threads = params.n_threads_batch = 1


@dataclass(frozen=True)
class CacheBytes:
    """One buffer of cells: what the log says, and the bytes that the library's methods return.

    allocated: bytes of memory taken for it; 0 where the model was loaded without allocating.
    """

    logged: LoggedCache
    k_bytes: int
    v_bytes: int
    allocated: int

    @property
    def total(self) -> int:
        return self.k_bytes + self.v_bytes


class LlamaModel:
    """A loaded GGUF file.  Close it after its contexts.

    With allocate=False only metadata is loaded, and contexts compute every size without taking the
    memory.  Raises LlamaError, quoting the log, for a file that cannot be loaded.
    """

    def __init__(self, path: Path, *, allocate: bool = True) -> None:
        library = native.load()
        params = library.llama_model_default_params()
        params.n_gpu_layers = 0
        if not allocate:
            params.no_alloc, params.load_mode = True, native.LOAD_MODE_NONE
        with recorded() as log:
            self.pointer: int | None = library.llama_model_load_from_file(
                str(path).encode(), params
            )
        if not self.pointer:
            raise LlamaError(f"{path.name} cannot be loaded: {_last(log)}")

    def close(self) -> None:
        """Free the model."""
        if self.pointer:
            native.load().llama_model_free(self.pointer)
        self.pointer = None

    def __enter__(self) -> LlamaModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class LlamaContext:
    """A context of a model, with what llama.cpp logged while it was made.

    Raises LlamaError, quoting the log, if llama.cpp cannot make it.
    """

    def __init__(self, model: LlamaModel, options: Options) -> None:
        library = native.load()
        params = library.llama_context_default_params()
        options.fill(params)
        with recorded() as log:
            self.pointer: int | None = library.llama_init_from_model(model.pointer, params)
        if not self.pointer:
            raise LlamaError(f"no context with {options}: {_last(log)}")
        self.log = log
        self.model = model  # kept alive: a context must not outlive it

    def close(self) -> None:
        """Free the context."""
        if self.pointer:
            native.load().llama_free(self.pointer)
        self.pointer = None

    def __enter__(self) -> LlamaContext:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    @property
    def memory(self) -> int:
        """The ``llama_memory_i`` of this context."""
        return int(native.load().llama_get_memory(self.pointer))

    def caches(self) -> list[CacheBytes]:
        """The buffers of cells: one for all layers, or one for full and one for sliding layers.

        Raises LlamaError if log and library disagree, or if the memory is of another class.
        """
        logged, held = read(self.log), self._kv_caches()
        if len(logged) != len(held):
            raise LlamaError(f"the log lists {len(logged)} KV caches, the context has {len(held)}")
        return [_cache_bytes(said, pointer) for said, pointer in zip(logged, held, strict=True)]

    def layer_bytes(self, n_layers: int) -> list[int]:
        """Bytes of each layer's cells; 0 for a layer that owns none.

        The layers of one buffer are equally wide.  Raises LlamaError if its bytes do not divide.
        """
        sizes = [0] * n_layers
        for held in self.caches():
            count = len(held.logged.layers)
            if held.total % max(count, 1):
                raise LlamaError(f"{held.total} bytes do not divide among {count} layers")
            for i in held.logged.layers:
                sizes[i] = held.total // count
        return sizes

    def _kv_caches(self) -> list[int]:
        library, memory = native.load(), self.memory
        kind = ctypes.c_void_p.from_address(memory).value
        if kind == native.vtable("14llama_kv_cache"):
            return [memory]
        if kind != native.vtable("19llama_kv_cache_iswa"):
            raise LlamaError("the memory is neither llama_kv_cache nor llama_kv_cache_iswa")
        return [
            library._ZNK19llama_kv_cache_iswa8get_baseEv(memory),
            library._ZNK19llama_kv_cache_iswa7get_swaEv(memory),
        ]


def _cache_bytes(logged: LoggedCache, cache: int) -> CacheBytes:
    library = native.load()
    found = CacheBytes(
        logged,
        library._ZNK14llama_kv_cache12size_k_bytesEv(cache),
        library._ZNK14llama_kv_cache12size_v_bytesEv(cache),
        library._ZNK14llama_kv_cache10total_sizeEv(cache),
    )
    if not logged.agrees(found.k_bytes, found.v_bytes):
        raise LlamaError(f"the log says {logged}, the library {found.k_bytes} + {found.v_bytes}")
    return found


@contextmanager
def recorded() -> Iterator[list[str]]:
    """Collect the lines that llama.cpp logs inside the block, and keep them off the screen.

    Afterwards llama.cpp stays silent, since nobody would read its log.
    """
    library, parts = native.load(), []
    lines: list[str] = []

    def take(_level: int, text: bytes, _data: object) -> None:
        parts.append(text.decode(errors="replace"))

    callback = native.LogCallback(take)
    library.llama_log_set(callback, None)
    try:
        yield lines
    finally:
        library.llama_log_set(_SILENT, None)
        lines += "".join(parts).splitlines()


_SILENT = native.LogCallback(lambda _level, _text, _data: None)


def _last(log: Sequence[str]) -> str:
    """The last line that mentions an error, or else the last line."""
    telling = [line for line in log if "error" in line]
    return (telling or list(log) or ["it logged nothing"])[-1].strip()
