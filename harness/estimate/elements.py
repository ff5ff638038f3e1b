"""How the numbers in a cache are stored: as plain floats, or in quantized blocks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Element:
    """A storage type.  block: how many numbers are stored together; nbytes: bytes per block."""

    name: str
    block: int
    nbytes: int

    def bytes_of(self, numbers: int) -> int:
        """Bytes of a row of `numbers` numbers.  Raises ValueError unless they fill whole blocks."""
        if numbers % self.block:
            raise ValueError(
                f"{self.name} stores blocks of {self.block} numbers, which do not divide {numbers}"
            )
        return numbers // self.block * self.nbytes

    @property
    def quantized(self) -> bool:
        """True if several numbers share a scale."""
        return self.block > 1


def _blocks(name: str, bits: int, scales: int) -> Element:
    """A ggml type: blocks of 32 numbers of `bits` bits, plus `scales` float16 values per block."""
    return Element(name, 32, 32 * bits // 8 + 2 * scales)


def _groups(name: str, bits: int) -> Element:
    """An MLX type: blocks of 64 numbers of `bits` bits, plus a half-precision scale and bias."""
    return Element(name, 64, 64 * bits // 8 + 2 * 2)


#: Every storage type, under the name that users of ggml, PyTorch and MLX know it by.
ELEMENTS: dict[str, Element] = {
    e.name: e
    for e in (
        Element("f32", 1, 4),
        Element("f16", 1, 2),
        Element("bf16", 1, 2),
        Element("fp8", 1, 1),
        _blocks("q8_0", 8, 1),
        _blocks("q5_1", 5, 2),
        _blocks("q5_0", 5, 1),
        _blocks("q4_1", 4, 2),
        _blocks("q4_0", 4, 1),
        _blocks("iq4_nl", 4, 1),
        _groups("mlx_q8", 8),
        _groups("mlx_q4", 4),
    )
}


def element(name: str) -> Element:
    """The storage type of that name.  Raises ValueError, listing the names, if there is none."""
    try:
        return ELEMENTS[name]
    except KeyError:
        known = ", ".join(ELEMENTS)
        raise ValueError(f"cache type must be one of {known}, got {name!r}") from None


GGML = frozenset({"q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"})
MLX = frozenset({"mlx_q8", "mlx_q4"})
