"""The shape of a Llama, in the words of a Hugging Face config.json."""

import reprlib
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# What a config.json may ask for that this model does not have; each with the values that ask for nothing.
UNSUPPORTED = {
    "model_type": (None, "llama"),
    "hidden_act": (None, "silu"),
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "attention_dropout": (None, 0),
    "pretraining_tp": (None, 1),
    "sliding_window": (None,),
    "is_causal": (None, True),
    "quantization_config": (None,),
}
REQUIRED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SILENT = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6}
"""What transformers takes where a config.json does not say, and it is not what LlamaConfig takes."""
LLAMA3_PARAMETERS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes and constants of a model. The field names are those of a Hugging Face config.json.

    Raises ValueError where a field is of the wrong type or the sizes do not fit together.
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
    bos_token_id: int | None = None
    """The token that begins a text, where there is one."""
    eos_token_id: int | list[int] | None = None
    """The token that ends a text, or several that do, where there are any."""

    @classmethod
    def from_hugging_face(cls, fields: Mapping[str, Any]) -> "LlamaConfig":
        """The config of a config.json, with its rotations as transformers 4 writes them or as transformers 5 does.

        Raises ValueError for what this model does not have (another model_type or activation, biases, a sliding
        window, quantised weights, a rope_type that is neither default nor llama3), for sizes that are missing and
        for values that mean nothing.
        """
        for name, allowed in UNSUPPORTED.items():
            _require(fields.get(name) in allowed, f"{name} {reprlib.repr(fields.get(name))} is not supported")
        for name in REQUIRED:
            _require(name in fields, f"{name} is missing")
        known = SILENT | {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        rope, scaling = fields.get("rope_parameters"), known.get("rope_scaling")
        _require(not (rope is not None and scaling), "rope_parameters and rope_scaling cannot both be given")
        name = "rope_scaling" if rope is None else "rope_parameters"
        if (rope := scaling if rope is None else rope) is not None:
            _require(isinstance(rope, dict), f"{name} must be an object, got {reprlib.repr(rope)}")
            inner, outer = (of.get("original_max_position_embeddings") for of in (rope, fields))
            _require(
                inner is None or outer is None or inner == outer,
                f"original_max_position_embeddings is {reprlib.repr(outer)}, but {reprlib.repr(inner)} in {name}",
            )
            known["rope_theta"] = rope.get("rope_theta", known.get("rope_theta", cls.rope_theta))
            known["rope_scaling"] = {field: value for field, value in rope.items() if field != "rope_theta"}
        return cls(**known)

    def to_hugging_face(self) -> dict[str, Any]:
        """The fields of a config.json that transformers 4 and 5 read."""
        return {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", **asdict(self)}

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end a text."""
        ends = self.eos_token_id
        return () if ends is None else tuple(ends) if isinstance(ends, list) else (ends,)

    def __post_init__(self) -> None:
        for field in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
            self._check_size(field)
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
        for field in ("num_key_value_heads", "head_dim", "intermediate_size", "max_position_embeddings"):
            self._check_size(field)
        _require(
            self.num_attention_heads % self.num_key_value_heads == 0,
            f"num_key_value_heads must divide num_attention_heads, got {self.num_key_value_heads} "
            f"and {self.num_attention_heads}",
        )
        _require(self.head_dim % 2 == 0, f"head_dim must be even, got {self.head_dim}")
        for field in ("initializer_range", "rope_theta", "rms_norm_eps"):
            value = getattr(self, field)
            _require(_is_number(value), f"{field} must be a finite number, got {reprlib.repr(value)}")
        _require(self.initializer_range >= 0, f"initializer_range must not be negative, got {self.initializer_range}")
        _require(self.rope_theta > 0, f"rope_theta must be positive, got {self.rope_theta}")
        _require(self.rms_norm_eps >= 0, f"rms_norm_eps must not be negative, got {self.rms_norm_eps}")
        tied = self.tie_word_embeddings
        _require(isinstance(tied, bool), f"tie_word_embeddings must be true or false, got {reprlib.repr(tied)}")
        for field, ids in (("bos_token_id", [self.bos_token_id]), ("eos_token_id", self.eos_token_id)):
            valid = all(id is None or _is_int(id) for id in (ids if isinstance(ids, list) else [ids]))
            _require(valid, f"{field} must be the id of a token, got {reprlib.repr(getattr(self, field))}")
        object.__setattr__(self, "rope_scaling", _llama3(self.rope_scaling))

    def _check_size(self, field: str) -> None:
        size = getattr(self, field)
        _require(_is_int(size) and size >= 1, f"{field} must be at least 1, got {reprlib.repr(size)}")


def _llama3(scaling: Any) -> dict[str, Any] | None:
    """The parameters of a `rope_scaling`, checked; None where it leaves the frequencies as they are."""
    if scaling is None:
        return None
    _require(isinstance(scaling, dict), f"rope_scaling must be an object, got {reprlib.repr(scaling)}")
    kinds = [scaling[name] for name in ("rope_type", "type") if scaling.get(name) is not None]  # older files say type
    kind = kinds[0] if kinds else "default"
    if kind == "default":
        others = sorted(name for name in scaling.keys() - {"rope_type", "type"} if scaling[name] is not None)
        listed = ", ".join(map(reprlib.repr, others))
        _require(not others, f"rope_scaling: {listed} of a default rope is not supported")
        return None
    _require(kind == "llama3", f"rope_scaling: only rope_type llama3 is supported, got {reprlib.repr(kind)}")
    lacks = [name for name in LLAMA3_PARAMETERS if name not in scaling]
    _require(not lacks, f"rope_scaling lacks {', '.join(lacks)}")
    unknown = sorted(scaling.keys() - {"rope_type", "type", *LLAMA3_PARAMETERS})
    _require(not unknown, f"rope_scaling: {', '.join(map(reprlib.repr, unknown))} is not supported")
    for name in LLAMA3_PARAMETERS:
        valid = _is_number(scaling[name]) and scaling[name] > 0
        _require(valid, f"rope_scaling: {name} must be positive, got {reprlib.repr(scaling[name])}")
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    _require(low < high, f"rope_scaling: low_freq_factor must be below high_freq_factor, got {low} and {high}")
    return {"rope_type": "llama3"} | {name: scaling[name] for name in LLAMA3_PARAMETERS}


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold."""
    return (_is_int(value) or isinstance(value, float)) and abs(value) <= sys.float_info.max


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(f"config: {otherwise}")
