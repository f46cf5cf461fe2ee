"""A training run of a second, and the command line that asks for it."""

from pathlib import Path
from typing import Any

from llama.training.options import Train, flags, plain

TEXT = "to be or not to be, that is the question:\nwhether 'tis nobler in the mind to suffer\n" * 12


def small_run(folder: Path, **changed: Any) -> Train:
    """A run over a short text in that folder, with dropout and both optimizers, in float32 on any processor."""
    text = folder / "text.txt"
    text.write_text(TEXT)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "window": 8}
    steps = {"batch_size": 4, "steps": 12, "warmup_steps": 4, "evaluate_every": 5, "save_every": 1}
    return Train(corpus=str(text), dtype="float32", dropout=0.1, **sizes | steps | changed)


def command(config: Train) -> list[str]:
    """What is typed for it after `python -m llama`."""
    return ["train", *flags(plain(config), plain(Train()))]
