"""A model on disk: config.json and model.safetensors as Hugging Face writes them, and the characters.

save("out/train/checkpoint", model, tokenizer)
model, tokenizer = load("out/train/checkpoint")
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from llama.config import LlamaConfig
from llama.implementation import Implementation
from llama.model import Llama
from llama.tokenizer import CharTokenizer


def save(folder: str | Path, model: Llama, tokenizer: CharTokenizer) -> None:
    """Write the model and its tokenizer into the folder, which is made where it is missing."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **asdict(model.config)}
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    tokenizer.save(folder / "characters.json")
    # Copies: in the model several may be views of one memory.
    tensors = {name: t.clone(memory_format=torch.contiguous_format) for name, t in model.state_dict().items()}
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load(folder: str | Path, implementation: Implementation | str = "fused") -> tuple[Llama, CharTokenizer]:
    """Read what `save` wrote, computed by the layers of any implementation.

    Raises ValueError where a file is missing or does not fit, in a sentence that names it.
    """
    folder = Path(folder)
    for name in ("config.json", "characters.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"checkpoint: {folder} has no {name}")
    tokenizer = CharTokenizer.load(folder / "characters.json")
    model = Llama(_config(folder / "config.json"), implementation)
    if tokenizer.vocab != model.config.vocab_size:
        raise ValueError(
            f"checkpoint: {folder} has {tokenizer.vocab} characters but a vocab_size of {model.config.vocab_size}"
        )
    try:
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
    except SafetensorError as error:
        raise ValueError(f"checkpoint: {folder / 'model.safetensors'} cannot be read ({error})") from error
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if wrong := sorted(name for name in expected | found if expected.get(name) != found.get(name)):
        name = wrong[0]
        raise ValueError(
            f"checkpoint: {folder / 'model.safetensors'} does not fit its config.json: "
            f"{name} should be {expected.get(name, 'absent')} and is {found.get(name, 'absent')}"
        )
    model.load_state_dict(tensors)
    return model, tokenizer


def _config(path: Path) -> LlamaConfig:
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return LlamaConfig.from_hugging_face(fields)
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise ValueError(f"checkpoint: {path} is not a config ({error})") from error
