"""What a run needs before its first step: the text, its splits, the layers and the model."""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from llama import implementation
from llama.implementation import Implementation
from llama.machine.device import check_compiler, check_memory, usable
from llama.model import weights
from llama.model.config import LlamaConfig
from llama.model.llama import Llama
from llama.text.byte_pairs import BytePairTokenizer
from llama.text.corpus import Corpus, load_corpus
from llama.text.tokenizer import CharTokenizer, JsonTokenizer, StoredTokenizer, load
from llama.text.windows import Windows, split
from llama.training import distributed
from llama.training.options import Train, compute_dtype


class Prepared(NamedTuple):
    """What a run needs before it begins: training, validation and test split on the device, and whose layers learn."""

    device: torch.device
    corpus: Corpus
    tokenizer: StoredTokenizer
    splits: list[Int64[Tensor, "n"]]
    layers: Implementation

    @property
    def unit(self) -> str:
        """What a token is called."""
        return "character" if isinstance(self.tokenizer, CharTokenizer) else "token"

    @property
    def floor(self) -> float | None:
        """The entropy of the text, where it is known, in nats per token of the validation split."""
        return None if self.corpus.floor is None else self.corpus.floor / self.per_character(self.splits[1])

    def per_character(self, ids: Int64[Tensor, "n"]) -> float:
        """How many tokens are predicted for each character of a split: all but its first token are predicted."""
        return (len(ids) - 1) / len(self.tokenizer.decode(ids[1:]))


def prepare(config: Train) -> Prepared:
    """The text and the layers of a run that `check` has passed. Raises ValueError as `run` does."""
    device = usable(config.device)
    corpus = load_corpus(config.corpus)
    if corpus.notice and distributed.group().rank == 0:
        print(corpus.notice, file=sys.stderr)
    layers = implementation.load(config.impl)
    prepared = in_tokens(config, device, corpus, layers)
    if config.compile:
        check_compiler(device)
    if layers.is_ours and layers.name == "naive" and not config.by_hand:
        raise ValueError(
            "train: autograd cannot see into the naive layers; train with vectorized or fused, or --by-hand"
        )
    return prepared


def in_tokens(config: Train, device: torch.device, corpus: Corpus, layers: Implementation) -> Prepared:
    """A text in the tokens that the run asks for. Raises ValueError where they are none, too few or too many."""
    parts = split(corpus.text, config.fractions)
    tokenizer = _tokenizer(config.tokenizer, corpus.text, parts[0], layers)
    # An empty split has no tokens, not even those that begin a text.
    splits = [(tokenizer.encode(part) if part else torch.empty(0, dtype=torch.int64)).to(device) for part in parts]
    prepared = Prepared(device, corpus, tokenizer, splits, layers)
    Windows(splits[0], config.window)  # which refuses a window that does not fit
    if len(splits[1]) < 2:
        raise ValueError(f"train: the validation split has {len(splits[1])} {prepared.unit}s, it needs at least 2")
    if isinstance(tokenizer, JsonTokenizer):  # ours lose nothing
        for part, ids in zip(parts, splits, strict=True):
            _check_given_back(config.tokenizer, part, tokenizer.decode(ids))
    if device.type == "cpu":
        _check_memory(config, tokenizer.vocab)
    return prepared


def _check_given_back(asked: str, text: str, found: str) -> None:
    """Raise ValueError for a tokenizer that loses some of the text: what a token costs would not be known in bytes."""
    if found != text:
        at = next((i for i, (a, b) in enumerate(zip(text, found, strict=False)) if a != b), min(len(text), len(found)))
        before, after = (of[max(0, at - 10) : at + 10] for of in (text, found))
        raise ValueError(f"train: --tokenizer {asked:.99} does not give the text back: {before!r} becomes {after!r}")


def _tokenizer(asked: str, text: str, training: str, layers: Implementation) -> StoredTokenizer:
    """Of the whole text its characters; byte pairs are learned from the training split alone.

    Raises ValueError for what means no tokenizer, or one that cannot be written beside the weights.
    """
    if asked == "characters":
        return CharTokenizer.from_text(text)
    if found := re.fullmatch(r"bpe:(\d{1,9})", asked):
        return BytePairTokenizer.train(training, int(found[1]), layers=layers)
    if not Path(asked).is_file():
        raise ValueError(f"train: tokenizer must be characters, bpe:N or a file, got {asked!r:.99}")
    tokenizer = load(asked)
    if not isinstance(tokenizer, StoredTokenizer):
        raise ValueError(f"train: tokenizer must be a characters.json or tokenizer.json, got {asked!r:.99}")
    return tokenizer


def _check_memory(config: Train, vocab: int) -> None:
    # In float32 the weights, their gradients and one moment; the tokens and their logits; and of each layer at least
    # the inputs of its norms and products, which the backward pass needs.
    sizes_of = model_config(config, vocab)
    model = 12 * weights.count(sizes_of)
    kept = config.num_hidden_layers * (4 * config.hidden_size + 2 * sizes_of.intermediate_size)
    rows = config.batch_size // (config.accumulate * distributed.group().size)
    batch = rows * config.window * (8 + (2 if compute_dtype(config) else 4) * (kept + vocab))
    sizes = ", ".join(f"{name} {getattr(config, name)}" for name in ("hidden_size", "num_hidden_layers", "batch_size"))
    check_memory(f"train: {sizes}", model + batch)


def model_config(config: Train, vocab: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        max_position_embeddings=config.window,
    )


def build(config: Train, prepared: Prepared) -> Llama:
    model = Llama(model_config(config, prepared.tokenizer.vocab), prepared.layers)
    model.reset_parameters(torch.Generator().manual_seed(config.seed))
    model.compute_dtype = compute_dtype(config)
    if config.compile:
        model.compile_training()
    return model.to(prepared.device)
