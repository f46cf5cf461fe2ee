"""What an implementation claims to do, in the words of its author: what it does not claim is not asked of it.

    CLAIMS = "float32 bfloat16, forward, no mask"

    claims = Claims.parse(CLAIMS)
    claims.refusal("attention", (q, k, v), {"mask": mask})    # "mask": this call is not claimed; "" where it is

A claim is a list with commas. Dtypes stand in one piece of it: where some are named, no others are claimed. Each other
piece is one of WORDS.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llama.implementation.arrays import tensors
from llama.layers import CHAPTER, parameters_of

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
WORDS = {
    "forward": "gradients",
    "no mask": "mask",
    "causal only": "causal=False",
    "no grouped heads": "grouped heads",
    "no cache": "fewer queries than keys",
    "no strides": "strides",
    "no empty batch": "empty batch",
    "one dtype": "mixed dtypes",
}
"""What is not claimed where a word is said."""
WITHOUT_DTYPE = ("rope_frequencies", "llama3_frequencies", "cosine_schedule")
"""Layers over numbers and frequencies, whose dtype does not follow that of a model."""
OWN_DTYPE = ("frequencies", "u", "lse_a", "lse_b", "scales")
"""Arguments whose dtype need not be that of the others."""
OF_ATTENTION = ("no mask", "causal only", "no cache")
OF_HEADS = ("attention", "self_attention", "decoder_layer", "llama")


@dataclass(frozen=True)
class Claims:
    """Dtypes, all where there are none, and words of WORDS."""

    dtypes: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Claims":
        """From a text as in the module's docstring. Raises ValueError for a word that there is not."""
        pieces = [" ".join(piece.split()) for piece in text.split(",")]
        dtypes, words = [], []
        for piece in filter(None, pieces):
            if piece in WORDS:
                words.append(piece)
            elif all(word in DTYPES for word in piece.split()):
                dtypes += piece.split()
            else:
                raise ValueError(f"{piece!r} is no claim; the claims are {', '.join([*DTYPES, *WORDS])}")
        return cls(tuple(d for d in DTYPES if d in dtypes), tuple(w for w in WORDS if w in words))

    def __bool__(self) -> bool:
        """Whether there is anything that is not claimed."""
        return bool(self.not_claimed)

    def __str__(self) -> str:
        return ", ".join([*([" ".join(self.dtypes)] if self.dtypes else []), *self.words])

    @property
    def not_claimed(self) -> list[str]:
        return [d for d in DTYPES if self.dtypes and d not in self.dtypes] + [WORDS[word] for word in self.words]

    def about(self, layer: str) -> "Claims":
        """What these claims mean for that layer."""
        differentiable = CHAPTER[layer] == "model" and layer not in WITHOUT_DTYPE
        applies = {
            **dict.fromkeys(WORDS, True),
            **dict.fromkeys(OF_ATTENTION, layer == "attention"),
            "forward": differentiable,
            "no grouped heads": layer in OF_HEADS,
        }
        dtypes = () if layer in WITHOUT_DTYPE else self.dtypes
        return dataclasses.replace(self, dtypes=dtypes, words=tuple(word for word in self.words if applies[word]))

    def claims(self, dtype: torch.dtype) -> bool:
        """Whether that dtype is claimed."""
        return not self.dtypes or dtype not in DTYPES.values() or dtype in [DTYPES[name] for name in self.dtypes]

    def refusal(self, layer: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """What this call would need that is not claimed; nothing where it is claimed."""
        given = dict(zip(parameters_of(layer), args, strict=False)) | dict(kwargs)
        of_all = tensors(list(given.values()))
        # The first argument with floats decides: it has the dtype of the result. Frequencies have their own.
        floats = next((of for value in given.values() if (of := _floats(value))), [])
        unclaimed = next((t.dtype for t in floats if not self.claims(t.dtype)), None)
        if unclaimed is not None:
            return str(unclaimed).removeprefix("torch.")
        asked = {
            "forward": torch.is_grad_enabled() and any(t.requires_grad for t in of_all),
            "no mask": given.get("mask") is not None,
            "causal only": given.get("causal", True) is False,
            "no grouped heads": _has_grouped_heads(given),
            "no cache": _size("q", 2, given) != _size("k", 2, given),
            "no strides": not all(t.is_contiguous() for t in of_all),
            "no empty batch": any(t.numel() == 0 for t in of_all),
            "one dtype": len({t.dtype for t in _floats([v for n, v in given.items() if n not in OWN_DTYPE])}) > 1,
        }
        return next((WORDS[word] for word in self.words if asked[word]), "")

    def trimmed(
        self, layer: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call without arguments that are not claimed and mean nothing here: a kernel need not have them."""
        unneeded: dict[str, Any] = {"mask": None} if "no mask" in self.words else {}
        unneeded |= {"causal": True} if "causal only" in self.words else {}
        given = dict(zip(parameters_of(layer), args, strict=False))
        cut = next((i for i, (name, value) in enumerate(given.items()) if unneeded.get(name, ...) is value), len(args))
        named = dict(list(given.items())[cut:]) | dict(kwargs)
        return tuple(args[:cut]), {name: value for name, value in named.items() if unneeded.get(name, ...) is not value}


def _has_grouped_heads(given: Mapping[str, Any]) -> bool:
    config = given.get("config")
    return (
        _size("q", 1, given) != _size("k", 1, given)
        or given.get("n_heads") != given.get("n_kv_heads")
        or getattr(config, "num_attention_heads", None) != getattr(config, "num_key_value_heads", None)
    )


def _size(name: str, axis: int, given: Mapping[str, Any]) -> int | None:
    tensor = given.get(name)
    return tensor.shape[axis] if isinstance(tensor, Tensor) and tensor.ndim > axis else None


def _floats(tree: Any) -> list[Tensor]:
    return [t for t in tensors(tree) if t.is_floating_point()]
