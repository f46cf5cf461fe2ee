"""The tensors of a Hugging Face folder: model.safetensors, or the shards that model.safetensors.index.json lists.

tensors = read("out/train/checkpoint", config)               # name -> tensor, in the dtype of the file
write_atomically("out/copy", writers(config, tensors))

All headers are compared with the config before the first tensor is read; so no more memory is used than the tensors
take, whatever a header or a config claims.
"""

import json
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llama.contract.weights import EMBEDDING, HEAD, of_model
from llama.machine.safe_files import one_line, read_json
from llama.model.config import LlamaConfig

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DERIVED = ".self_attn.rotary_emb.inv_freq"
"""The rotation frequencies, which older checkpoints bring although they follow from the config."""


def count(config: LlamaConfig) -> int:
    """How many numbers the model has: however many layers, only two are looked at."""
    one, two = (sum(map(math.prod, shapes(replace(config, num_hidden_layers=n)).values())) for n in (1, 2))
    return one + (two - one) * (config.num_hidden_layers - 1)


def shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of the state dict."""
    d_model, d_ff = config.hidden_size, config.intermediate_size
    q_rows, kv_rows = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    by_ending = {
        "embed_tokens.weight": (config.vocab_size, d_model),
        "q_proj.weight": (q_rows, d_model),
        "k_proj.weight": (kv_rows, d_model),
        "v_proj.weight": (kv_rows, d_model),
        "o_proj.weight": (d_model, q_rows),
        "gate_proj.weight": (d_ff, d_model),
        "up_proj.weight": (d_ff, d_model),
        "down_proj.weight": (d_model, d_ff),
        HEAD: (config.vocab_size, d_model),
    }
    wanted = of_model(config.num_hidden_layers)
    if config.tie_word_embeddings:
        wanted.remove(HEAD)
    return {name: by_ending.get(".".join(name.split(".")[-2:]), (d_model,)) for name in wanted}


def read(folder: str | Path, config: LlamaConfig) -> dict[str, Tensor]:
    """The tensors of `shapes(config)`, in the dtype of the file.

    Raises ValueError, in a sentence that names the file and the tensor, where files are missing or damaged, tensors
    are missing, not foreseen, of another shape than the config says, of several dtypes or of one that holds no
    weights (quantised files), not finite, or where the config ties a head that the file has different.
    """
    folder = Path(folder)
    with ExitStack() as opened:
        files = _open(folder, opened)
        _check(folder, files, config)
        # A tied matrix is stored once, and some tools keep it under the name of the head.
        stored = {name: HEAD if name == EMBEDDING and name not in files else name for name in shapes(config)}
        tensors = {name: files[held].get_tensor(held) for name, held in stored.items()}
        for name, tensor in tensors.items():
            check_finite(folder, name, tensor)
        tied = config.tie_word_embeddings and HEAD in files
        if tied and not torch.equal(files[HEAD].get_tensor(HEAD), tensors[EMBEDDING]):
            raise ValueError(f"checkpoint: {folder}: tie_word_embeddings is true, but {HEAD} differs from {EMBEDDING}")
    return tensors


def writers(config: LlamaConfig, tensors: Mapping[str, Tensor]) -> dict[str, Callable[[Path], None]]:
    """What `write_atomically` needs to write config.json and model.safetensors, as transformers reads them.

    Raises ValueError for what `read` would refuse: weights of several dtypes, of one that holds none, or not finite.
    """
    dtypes = {t.dtype: name for name, t in tensors.items()}
    if len(dtypes) > 1 or not dtypes.keys() <= set(DTYPES.values()):
        listed = ", ".join(f"{name} {str(dtype).removeprefix('torch.')}" for dtype, name in dtypes.items())
        raise ValueError(f"checkpoint: weights must be of one dtype of {', '.join(DTYPES)}, got {listed}")
    for name, tensor in tensors.items():
        check_finite("not written", name, tensor)

    def write_weights(path: Path) -> None:
        # Copies: in the model several may be views of one memory.
        copies = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
        try:
            safetensors.torch.save_file(copies, path, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(str(error)) from error

    def write_config(path: Path) -> None:
        fields = config.to_hugging_face() | {"torch_dtype": str(tensors[EMBEDDING].dtype).removeprefix("torch.")}
        path.write_text(json.dumps(fields, indent=2), encoding="utf-8")

    return {WEIGHTS: write_weights, "config.json": write_config}


def check_finite(source: str | Path, name: str, tensor: Tensor) -> None:
    """Raise ValueError where an element is NaN or infinite."""
    low, high = tensor.aminmax()  # NaN where any element is; takes no memory, unlike a mask
    if not (low.isfinite() and high.isfinite()):
        at = (~tensor.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"checkpoint: {source}: {name}{at} is {tensor[tuple(at)].item()}, weights must be finite")


def _open(folder: Path, opened: ExitStack) -> dict[str, Any]:
    """For each tensor the open file that holds it; only headers are read."""
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return _open_one(folder / WEIGHTS, opened)
    listed = read_json(folder / INDEX).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(shard, str) for shard in listed.values()):
        raise ValueError(f"checkpoint: {folder / INDEX}: weight_map must map the names of tensors to those of files")
    files: dict[str, Any] = {}
    for shard in sorted(set(listed.values())):
        if Path(shard).name != shard:
            raise ValueError(f"checkpoint: {folder / INDEX}: {shard!r} is not the name of a file of the same folder")
        held = _open_one(folder / shard, opened)
        for name in held:
            if listed.get(name) != shard:
                where = repr(listed[name]) if name in listed else "nowhere"
                raise ValueError(f"checkpoint: {folder / INDEX}: {name!r:.99} is in {shard!r}, but listed {where}")
        files |= held
    if lacks := sorted(listed.keys() - files.keys()):
        raise ValueError(f"checkpoint: {folder / INDEX}: {lacks[0]!r:.99} is not in {listed[lacks[0]]!r}")
    return files


def _open_one(path: Path, opened: ExitStack) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"checkpoint: {path.parent} has no {path.name}")
    try:
        file = opened.enter_context(safe_open(path, framework="pt"))
    except SafetensorError as error:
        raise ValueError(f"checkpoint: {path} cannot be read ({one_line(error)})") from error
    return dict.fromkeys(file.keys(), file)


def _check(folder: Path, files: Mapping[str, Any], config: LlamaConfig) -> None:
    if config.num_hidden_layers > len(files):  # before so many names are made
        layers, count = config.num_hidden_layers, len(files)
        raise ValueError(f"checkpoint: {folder}: num_hidden_layers is {layers}, but there are {count} tensors in all")
    headers = {name: file.get_slice(name) for name, file in files.items() if not name.endswith(DERIVED)}
    found = {name: tuple(header.get_shape()) for name, header in headers.items()}
    expected = shapes(config)
    if config.tie_word_embeddings and HEAD in found:
        expected[HEAD] = expected[EMBEDDING]
        if EMBEDDING not in found:
            del expected[EMBEDDING]
    if wrong := sorted(name for name in expected | found if expected.get(name) != found.get(name)):
        name = wrong[0]
        should, got = (list(t[name]) if name in t else "absent" for t in (expected, found))
        raise ValueError(
            f"checkpoint: {folder} does not fit its config.json: {name!r:.99} should be {should} and is {got}"
        )
    dtypes = {header.get_dtype(): name for name, header in headers.items()}
    if unknown := sorted(dtypes.keys() - DTYPES):
        raise ValueError(
            f"checkpoint: {folder}: {dtypes[unknown[0]]!r:.99} is {unknown[0]}; weights are {', '.join(DTYPES)}"
        )
    if len(dtypes) > 1:
        listed = ", ".join(f"{name!r:.99} {dtype}" for dtype, name in sorted(dtypes.items()))
        raise ValueError(f"checkpoint: {folder}: weights must be of one dtype, got {listed}")
