"""The model that a command is about: where it lies, whose layers compute it, in what, and on which device."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from llama.machine.device import multiplies_bfloat16, usable
from llama.model import checkpoint
from llama.model.llama import Llama
from llama.model.quantized import quantized
from llama.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class FromCheckpoint:
    """What every command that needs a trained model is told of it."""

    checkpoint: tyro.conf.Positional[Path] = Path("out/train/checkpoint")
    """Folder that `train` or transformers wrote, a file of llama2.c, or stories260K."""
    tokenizer: Path | None = None
    """Its tokenizer, where that is not the file beside the weights: a characters.json, tokenizer.json or tok512.bin."""
    impl: str = "fused"
    """Whose layers compute it: naive, vectorized, fused, a dotted module, a .py file or a folder."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """What the weights are turned into; by default they stay as they are, or become float32 where the device does not
    multiply bfloat16. Where it does, that is faster for large models."""
    quantize: Literal[8, 4] | None = None
    """Hold each matrix in so many bits for a weight, made when the model is loaded."""
    device: str = "cpu"
    """cpu, cuda or mps."""

    def load(self) -> tuple[Llama, Tokenizer]:
        """The model, not quantised yet, and its tokenizer.

        Raises ValueError or OSError, in one sentence, for files, layers or a device that cannot be used.
        """
        return load(self.checkpoint, self.impl, self.tokenizer, self.dtype, usable(self.device))

    def quantized(self, model: Llama) -> Llama:
        """The model in the bits that are asked for, or itself. Raises ValueError where the layers do not allow it."""
        return model if self.quantize is None else quantized(model, self.quantize)


def load(
    path: Path, impl: str, tokenizer: Path | None, dtype: str | None, device: torch.device
) -> tuple[Llama, Tokenizer]:
    """A model for generation, and its tokenizer."""
    model, found = checkpoint.load(path, impl, tokenizer)
    wide = dtype == "float32" or (dtype is None and not multiplies_bfloat16(device))
    model.to(device, torch.float32 if wide else None)
    model.eval().compute_dtype = torch.bfloat16 if dtype == "bfloat16" else None
    return model, found
