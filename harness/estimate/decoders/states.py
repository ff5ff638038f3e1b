"""What layers of a linear attention, a state space or a convolution keep, whatever the context.

Shapes are those of the caches that the classes of transformers 5 fill; tests compare them with real
ones.  A convolution keeps its last inputs, channels by kernel.  A state is heads by two dimensions,
or channels by one.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.estimate.fields import Fields
from harness.estimate.geometry import LayerState

States = tuple[LayerState, ...]
Formula = Callable[[Fields], States]


def conv(channels: int, kernel: int) -> LayerState:
    """The last inputs of a convolution."""
    return LayerState("conv", channels * kernel)


def recurrent(*shape: int, stored: str | None = "f32") -> LayerState:
    """A state of that shape; nearly every class computes and keeps it in float32."""
    numbers = 1
    for size in shape:
        numbers *= size
    return LayerState("recurrent", numbers, stored=stored)


def need(fields: Fields, key: str) -> int:
    """A figure that the formula cannot do without.  Raises GeometryError naming the key."""
    return fields.first(key)[1]


def or_else(fields: Fields, key: str, value: int) -> int:
    """A figure, or what stands for it where the config has none."""
    found = fields.integer(key)
    return value if found is None else found


def _delta(fields: Fields) -> States:
    """Gated delta nets (Qwen3-Next, OLMo Hybrid): one convolution over queries, keys and values."""
    heads = need(fields, "num_attention_heads")
    keys = or_else(fields, "linear_num_key_heads", heads)
    values = or_else(fields, "linear_num_value_heads", heads)
    k_dim = fields.integer("linear_key_head_dim")
    if k_dim is None:
        k_dim = 3 * need(fields, "hidden_size") // (4 * keys)
    v_dim = or_else(fields, "linear_value_head_dim", 2 * k_dim)
    kernel = need(fields, "linear_conv_kernel_dim")
    return conv(2 * keys * k_dim + values * v_dim, kernel), recurrent(values, k_dim, v_dim)


def _kda(fields: Fields) -> States:
    """Kimi delta attention: queries, keys and values of the same heads."""
    listed = fields.part("linear_attn_config") or Fields(fields.name, {})
    heads = or_else(listed, "num_heads", fields.integer("linear_num_heads") or 32)
    dim = or_else(listed, "head_dim", fields.integer("linear_head_dim") or 128)
    kernel = or_else(
        listed, "short_conv_kernel_size", fields.integer("linear_conv_kernel_dim") or 4
    )
    return conv(3 * heads * dim, kernel), recurrent(heads, dim, dim)


def _bailing(fields: Fields) -> States:
    """As Kimi's, with the heads of the full layers."""
    heads = need(fields, "num_attention_heads")
    # The class saves the width of its rotary part as head_dim, and this one beside it.
    dim = or_else(fields, "linear_head_dim", need(fields, "head_dim"))
    return conv(3 * heads * dim, need(fields, "short_conv_kernel_size")), recurrent(heads, dim, dim)


def _lightning(fields: Fields) -> States:
    """MiniMax: no convolution, and a state of the model's own type."""
    heads = need(fields, "num_attention_heads")
    dim = or_else(fields, "head_dim", need(fields, "hidden_size") // heads)
    return (recurrent(heads, dim, dim, stored=None),)


def _inner(fields: Fields, key: str) -> int:
    """Width of a state space's inside: so many times the hidden size, which may be 1.5."""
    times = fields.value(key)
    if isinstance(times, bool) or not isinstance(times, int | float) or not 0 < times <= 64:
        raise fields.error(f"{fields.written(key)} must be a number in 0…64", times)
    return int(times * need(fields, "hidden_size"))


def _mamba(expand: str, kernel: str, state: str) -> Formula:
    """Mamba: a state for each channel."""

    def formula(fields: Fields) -> States:
        inner = _inner(fields, expand)
        return conv(inner, need(fields, kernel)), recurrent(inner, need(fields, state))

    return formula


def _mamba2(width: Callable[[Fields], int], *keys: str) -> Formula:
    """Mamba 2: heads, and groups whose B and C go through the convolution too.

    keys: of the kernel, the groups, the state's size and the heads.
    """

    def formula(fields: Fields) -> States:
        inner = width(fields)
        kernel, groups, state, heads = (need(fields, key) for key in keys)
        channels = inner + 2 * groups * state
        return conv(channels, kernel), recurrent(heads, inner // heads, state)

    return formula


def _nemotron_width(fields: Fields) -> int:
    return need(fields, "mamba_num_heads") * need(fields, "mamba_head_dim")


def _falcon_h1_width(fields: Fields) -> int:
    width = fields.integer("mamba_d_ssm")
    return _inner(fields, "mamba_expand") if width is None else width


def _zamba(fields: Fields) -> States:
    """Zamba: Mamba whose channels are split into heads."""
    inner, heads = _inner(fields, "mamba_expand"), need(fields, "n_mamba_heads")
    state = need(fields, "mamba_d_state")
    return conv(inner, need(fields, "mamba_d_conv")), recurrent(heads, inner // heads, state)


def _short_conv(fields: Fields) -> States:
    """LFM2: the last inputs of a short convolution."""
    return (conv(need(fields, "hidden_size"), need(fields, "conv_L_cache")),)


def _griffin(fields: Fields) -> States:
    """RecurrentGemma: the last inputs (its view of them keeps the oldest alive), and a state."""
    width = need(fields, "hidden_size")
    lru = or_else(fields, "lru_width", width)
    return conv(width, need(fields, "conv1d_width")), recurrent(lru)


_SSM = ("mamba_d_conv", "mamba_n_groups", "mamba_d_state", "mamba_n_heads")


def _expanded(fields: Fields) -> int:
    return _inner(fields, "mamba_expand")


def _inkling(fields: Fields, sliding: bool) -> States:
    """Convolutions over the keys, the values and the inputs of either half of a layer."""
    heads, dim = (
        ("swa_num_key_value_heads", "swa_head_dim")
        if sliding
        else ("num_key_value_heads", "head_dim")
    )
    width, kernel = need(fields, heads) * need(fields, dim), need(fields, "conv_kernel_size")
    return (*[conv(width, kernel)] * 2, *[conv(need(fields, "hidden_size"), kernel)] * 2)


def _zaya(fields: Fields) -> States:
    """Convolved queries and keys, and the half of the values that comes from the token before."""
    dim, keys = need(fields, "head_dim"), need(fields, "num_key_value_heads")
    kernel = or_else(fields, "cca_time0", 2) + or_else(fields, "cca_time1", 2) - 2
    channels = (need(fields, "num_attention_heads") + keys) * dim
    return conv(channels, kernel), recurrent(keys * dim // 2, stored=None)


def _rwkv(fields: Fields) -> States:
    """RWKV 4: the inputs of the token before, and three sums in float32."""
    width = need(fields, "hidden_size")
    inner = or_else(fields, "attention_hidden_size", width)
    return LayerState("conv", 2 * width), recurrent(3, inner)


#: The states of a layer of linear attention (or of a convolution), by `model_type`.
FORMULAS: dict[str, Formula] = {
    "bailing_hybrid": _bailing,
    "bamba": _mamba2(_expanded, *_SSM),
    "falcon_h1": _mamba2(_falcon_h1_width, *_SSM),
    "falcon_mamba": _mamba("expand", "conv_kernel", "state_size"),
    "glm5_next_text": _kda,
    "granitemoehybrid": _mamba2(_expanded, *_SSM),
    "inkling2_text": lambda fields: _inkling(fields, sliding=False),
    "inkling_text": lambda fields: _inkling(fields, sliding=False),
    "jamba": _mamba("mamba_expand", "mamba_d_conv", "mamba_d_state"),
    "kimi_linear": _kda,
    "lfm2": _short_conv,
    "lfm2_moe": _short_conv,
    "lfm3": _short_conv,
    "mamba": _mamba("expand", "conv_kernel", "state_size"),
    "mamba2": _mamba2(
        lambda fields: _inner(fields, "expand"),
        *("conv_kernel", "n_groups", "state_size", "num_heads"),
    ),
    "minimax": _lightning,
    "minimax_m1": _lightning,
    "minimax_text_01": _lightning,
    "nemotron_h": _mamba2(
        _nemotron_width, "conv_kernel", "n_groups", "ssm_state_size", "mamba_num_heads"
    ),
    "olmo_hybrid": _delta,
    "qwen3_5_moe_text": _delta,
    "qwen3_5_text": _delta,
    "qwen3_next": _delta,
    "recurrent_gemma": _griffin,
    "rwkv": _rwkv,
    "zamba": _zamba,
    "zamba2": _mamba2(_expanded, "mamba_d_conv", "mamba_ngroups", "mamba_d_state", "n_mamba_heads"),
    "zaya": _zaya,
}

#: The states of a layer that also has a window, where they differ.
SLIDING_FORMULAS: dict[str, Formula] = {
    "inkling2_text": lambda fields: _inkling(fields, sliding=True),
    "inkling_text": lambda fields: _inkling(fields, sliding=True),
}
