"""The shape of a Llama, in the words of a Hugging Face config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What a config.json may ask for that this model does not have; each with the values that ask for nothing.
UNSUPPORTED = {
    "model_type": (None, "llama"),
    "hidden_act": (None, "silu"),
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "sliding_window": (None,),
    "quantization_config": (None,),
}
LLAMA3_PARAMETERS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes and constants of a model. The field names are those of a Hugging Face config.json.

    Raises ValueError where the sizes do not fit together.
    """

    vocab_size: int
    """Number of tokens (vocab)."""
    hidden_size: int = 128
    """Width of the residual stream (d_model)."""
    intermediate_size: int = None  # type: ignore[assignment]  # filled in below
    """Width of the feed-forward block (d_ff); by default 8/3 of hidden_size, rounded up to a multiple of 32."""
    num_hidden_layers: int = 4
    """Number of decoder layers (n_layers)."""
    num_attention_heads: int = 4
    """Number of query heads (n_heads)."""
    num_key_value_heads: int = None  # type: ignore[assignment]  # filled in below
    """Number of key and value heads (n_kv_heads); by default as many as query heads."""
    head_dim: int = None  # type: ignore[assignment]  # filled in below
    """Features per head; by default hidden_size / num_attention_heads."""
    max_position_embeddings: int = 64
    """Longest context, in tokens."""
    rms_norm_eps: float = 1e-5
    """eps of every RMSNorm."""
    rope_theta: float = 10000.0
    """Base of the rotation frequencies."""
    rope_scaling: dict[str, Any] | None = None
    """None, or the parameters of `rope_type: llama3`."""
    tie_word_embeddings: bool = False
    """Whether the output head is the embedding itself."""
    initializer_range: float = 0.02
    """Standard deviation of the initial weights."""

    @classmethod
    def from_hugging_face(cls, fields: Mapping[str, Any]) -> "LlamaConfig":
        """The config of a config.json, with its rotations as transformers 4 writes them or as transformers 5 does.

        Raises ValueError for what this model does not have: another model_type or activation, biases, a sliding
        window, quantised weights, a rope_type that is neither default nor llama3.
        """
        for name, allowed in UNSUPPORTED.items():
            _require(fields.get(name) in allowed, f"{name} {fields.get(name)!r} is not supported")
        known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        if rope := dict(fields.get("rope_parameters") or {}):
            known["rope_theta"] = rope.pop("rope_theta", cls.rope_theta)
            known["rope_scaling"] = rope
        scaling = known.get("rope_scaling") or {}
        if (scaling.get("rope_type") or scaling.get("type") or "default") == "default":
            known["rope_scaling"] = None
        return cls(**known)

    def __post_init__(self) -> None:
        for field in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
            "num_key_value_heads",
            "head_dim",
            "intermediate_size",
        ):
            size = getattr(self, field)
            if size is not None:
                _require(isinstance(size, int) and size >= 1, f"{field} must be at least 1, got {size!r}")
        if self.num_key_value_heads is None:
            object.__setattr__(self, "num_key_value_heads", self.num_attention_heads)
        if self.head_dim is None:
            _require(
                self.hidden_size % self.num_attention_heads == 0,
                f"num_attention_heads must divide hidden_size, got {self.num_attention_heads} and {self.hidden_size}",
            )
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)
        if self.intermediate_size is None:
            object.__setattr__(self, "intermediate_size", -(-8 * self.hidden_size // (3 * 32)) * 32)
        _require(
            self.num_attention_heads % self.num_key_value_heads == 0,
            f"num_key_value_heads must divide num_attention_heads, got {self.num_key_value_heads} "
            f"and {self.num_attention_heads}",
        )
        _require(self.head_dim % 2 == 0, f"head_dim must be even, got {self.head_dim}")
        _require(self.initializer_range >= 0, f"initializer_range must not be negative, got {self.initializer_range}")
        _require(self.rope_theta > 0, f"rope_theta must be positive, got {self.rope_theta}")
        _require(self.rms_norm_eps >= 0, f"rms_norm_eps must not be negative, got {self.rms_norm_eps}")
        if self.rope_scaling is not None:
            kind = self.rope_scaling.get("rope_type")
            _require(kind == "llama3", f"rope_scaling: only rope_type llama3 is supported, got {kind}")
            lacks = [name for name in LLAMA3_PARAMETERS if name not in self.rope_scaling]
            _require(not lacks, f"rope_scaling lacks {', '.join(lacks)}")


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(f"config: {otherwise}")
