"""What a training run is asked for: the flags of `python -m llama train`, their presets, and how they are typed.

config = Train(steps=100)
check(config)                                # ValueError for what means nothing
flags(plain(config), plain(Train()))         # ["--steps", "100"]
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch

from llama import implementation
from llama.machine.device import multiplies_bfloat16
from llama.training import distributed
from llama.training.distributed import Group


@dataclass(frozen=True)
class Train:
    """Train a small Llama on a text and report how well it predicts what it has not seen."""

    preset: Literal["quick", "shakespeare"] = "quick"
    """What the flags that are not given are: quick is two minutes on two cores, shakespeare the best they can do."""
    corpus: str = "tinyshakespeare"
    """tinyshakespeare, grammar (built in, with known entropy), or the path of a text file."""
    tokenizer: str = "characters"
    """What the text is cut into: characters; bpe:N for a vocabulary of N byte pairs that the training split teaches; or
    the path of a characters.json or tokenizer.json."""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Parts of the text for training, validation and test."""
    hidden_size: int = 128
    """Width of the model (d_model)."""
    num_hidden_layers: int = 4
    """Number of decoder layers."""
    num_attention_heads: int = 4
    """Number of query heads."""
    num_key_value_heads: int = 2
    """Number of key and value heads."""
    window: int = 128
    """Tokens that the model sees at once; by default they are characters."""
    batch_size: int = 16
    """Windows per step."""
    accumulate: int = 1
    """Parts that the windows of a step go through the model in, one after another: less memory, the same gradient."""
    steps: int = 1100
    """Optimizer steps."""
    peak_lr: float = 6e-3
    """Learning rate at the end of the warm-up."""
    min_lr: float = 3e-5
    """Learning rate at the end of the cosine."""
    muon_lr: float = 0.02
    """Peak learning rate of Muon for the matrices within the layers; 0 leaves them to AdamW as well."""
    warmup_steps: int = 100
    """Steps of the warm-up."""
    weight_decay: float = 0.1
    """Decay of the matrices; norms have none."""
    beta1: float = 0.9
    """AdamW's memory of the gradient."""
    beta2: float = 0.99
    """AdamW's memory of its square."""
    max_norm: float = 1.0
    """Length that the gradient is clipped to."""
    dropout: float = 0.0
    """Part of the embeddings, and of what each block adds, that is set to zero in training, to the nearest 256th."""
    evaluate_every: int = 275
    """Steps between two passes over the whole validation split."""
    seed: int = 0
    """Seed of the weights, the batches and the sample."""
    impl: str = "fused"
    """Whose layers compute it: naive, vectorized, fused, a dotted module, a .py file or a folder."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the layers and Muon compute in: auto is bfloat16 where the device multiplies it. Weights stay float32."""
    compile: bool = False
    """Let torch.compile make one program of the model: about half a minute at first, then shorter steps, and losses
    that are rounded otherwise. It needs a C++ compiler."""
    by_hand: bool = False
    """Take every gradient from the layers of the chapter `gradients`, with autograd off throughout; in float32."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    out: Path = Path("out/train")
    """Folder for the checkpoint, the CSV and the plot, and for the run while it is unfinished."""
    save_every: int = 100
    """Steps between two times that the run is saved; at most so many are lost when it is killed."""
    resume: bool = False
    """Go on with the unfinished run in the folder, with the same flags; the result is the same to the last bit."""
    profile: bool = False
    """Print where the time of a step goes, and train no further."""


PRESETS = {
    "quick": Train(),
    "shakespeare": Train(
        preset="shakespeare",
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        window=256,
        batch_size=12,
        steps=2300,
        dropout=0.1,
        evaluate_every=575,
    ),
}


def check(config: Train, group: Group = distributed.ALONE) -> None:
    """Raise ValueError for sizes and rates that mean nothing, before anything is written."""
    if not 0 <= config.dropout <= 255 / 256:
        raise ValueError(f"train: dropout must lie in 0..255/256, got {config.dropout}")
    if not config.muon_lr >= 0:
        raise ValueError(f"train: muon_lr must not be negative, got {config.muon_lr}")
    for name in ("peak_lr", "muon_lr", "weight_decay"):
        if math.isinf(getattr(config, name)):
            raise ValueError(f"train: {name} must be finite, got {getattr(config, name)}")
    for name in ("batch_size", "steps", "evaluate_every", "save_every"):
        if getattr(config, name) < 1:
            raise ValueError(f"train: {name} must be at least 1, got {getattr(config, name)}")
    if config.accumulate < 1 or config.batch_size % config.accumulate:
        raise ValueError(f"train: accumulate must divide batch_size, got {config.accumulate} and {config.batch_size}")
    if config.batch_size % (config.accumulate * group.size):
        raise ValueError(
            f"train: accumulate times the number of processes must divide batch_size, got {config.accumulate} · "
            f"{group.size} and {config.batch_size}"
        )
    if config.profile and group.size > 1:
        raise ValueError(f"train: --profile is for one process, got {group.size}")
    if config.by_hand:
        _check_by_hand(config, group)
    if not 0 <= config.seed < 2**63:
        raise ValueError(f"train: seed must lie in 0..2^63 - 1, got {config.seed}")
    # Our own schedule and optimizer refuse the rest, in their own sentences.
    ours, one = implementation.load("vectorized"), torch.ones(1)
    lr = ours.cosine_schedule(0, config.peak_lr, min(config.warmup_steps, config.steps), config.steps, config.min_lr)
    ours.adamw(one, one, one, one, 1, lr, (config.beta1, config.beta2), weight_decay=config.weight_decay)
    ours.clip_grad_norm([one], config.max_norm)


def _check_by_hand(config: Train, group: Group) -> None:
    for asked, what in (
        (config.dropout > 0, f"dropout, got {config.dropout}"),
        (config.compile, "--compile, which compiles what autograd makes of the layers"),
        (config.dtype == "bfloat16", "bfloat16; leave --dtype out, or give float32"),
        (group.size > 1, f"several processes, got {group.size}"),
    ):
        if asked:
            raise ValueError(f"train: --by-hand knows no {what}")


def compute_dtype(config: Train) -> torch.dtype | None:
    """What the layers compute in where it is not float32."""
    auto = config.dtype == "auto" and not config.by_hand and multiplies_bfloat16(torch.device(config.device))
    return torch.bfloat16 if auto or config.dtype == "bfloat16" else None


def flags(config: Mapping[str, Any], default: Mapping[str, Any]) -> list[str]:
    """What has to be typed for the config where the default is what nothing typed gives."""
    typed: list[str] = []
    for name, value in config.items():
        flag = name.replace("_", "-")
        if value != default[name]:
            if isinstance(value, bool):
                typed.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                words = [str(word) for word in (value if isinstance(value, list) else [value])]
                typed += [f"--{flag}={words[0]}"] if words[0].startswith("-") else [f"--{flag}", *words]
    return typed


def plain(config: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON has them."""
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    return json.loads(json.dumps(values, default=str))


def shown(value: Any) -> str:
    """A value as it is typed; on one line and not long, whatever a file says that it is."""
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{text if text.isprintable() else repr(text):.99}"
