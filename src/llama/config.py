"""The shape of a Llama, in the words of a Hugging Face config.json."""

from dataclasses import dataclass
from typing import Any


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

    def __post_init__(self) -> None:
        for field in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
        ):
            _require(getattr(self, field) >= 1, f"{field} must be at least 1, got {getattr(self, field)}")
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
        _require(self.intermediate_size >= 1, f"intermediate_size must be at least 1, got {self.intermediate_size}")
        _require(
            self.num_key_value_heads >= 1 and self.num_attention_heads % self.num_key_value_heads == 0,
            f"num_key_value_heads must divide num_attention_heads, got {self.num_key_value_heads} "
            f"and {self.num_attention_heads}",
        )
        _require(self.head_dim >= 2 and self.head_dim % 2 == 0, f"head_dim must be even, got {self.head_dim}")
        _require(self.rope_theta > 0, f"rope_theta must be positive, got {self.rope_theta}")
        _require(self.rms_norm_eps >= 0, f"rms_norm_eps must not be negative, got {self.rms_norm_eps}")
        if self.rope_scaling is not None:
            kind = self.rope_scaling.get("rope_type")
            _require(kind == "llama3", f"rope_scaling: only rope_type llama3 is supported, got {kind}")


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(f"config: {otherwise}")
