"""`python -m llama generate`: a checkpoint continues a text."""

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from llama.generation.prompt import read_prompt
from llama.generation.stream import positions_held, stream
from llama.generation.whole_characters import pieces
from llama.machine.device import check_memory, multiplies_bfloat16, usable
from llama.model import checkpoint
from llama.text.tokenizer import Tokenizer

SEPARATOR = "---\n"


@dataclass(frozen=True)
class Generate:
    """Let a trained model continue a text."""

    checkpoint: tyro.conf.Positional[Path] = Path("out/train/checkpoint")
    """Folder that `train` or transformers wrote, a file of llama2.c, or stories260K."""
    tokenizer: Path | None = None
    """Its tokenizer, where that is not the file beside the weights: a characters.json, tokenizer.json or tok512.bin."""
    prompt: str | None = None
    """The text to continue; - reads it from standard input. Without one a new text begins."""
    prompt_file: Path | None = None
    """A file with the text to continue."""
    max_new_tokens: int = 500
    """How many tokens to add at most; fewer where the model ends the text."""
    samples: int = 1
    """How many texts to write, all from the same prompt."""
    temperature: float = 0.8
    """Below 1, likely tokens become likelier; above 1, unlikely ones. 0 always takes the likeliest."""
    top_k: int | None = None
    """Draw from the k likeliest only."""
    top_p: float | None = None
    """Draw from the likeliest that reach this probability together."""
    min_p: float | None = None
    """Draw from those at least this fraction as likely as the likeliest."""
    seed: int = 0
    """The same seed gives the same text."""
    impl: str = "fused"
    """Whose layers compute it: naive, vectorized, fused, a dotted module, a .py file or a folder."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """What the weights are turned into; by default they stay as they are, or become float32 where the device does not
    multiply bfloat16. Where it does, that is faster for large models."""
    device: str = "cpu"
    """cpu, cuda or mps."""


def _beginning(tokenizer: Tokenizer) -> str:
    """What a text begins with: nothing where a token says so, else a new line, or the first token that there is."""
    if len(tokenizer.encode("")):
        return ""
    try:
        tokenizer.encode("\n")
    except ValueError:
        return tokenizer.decode([0])
    return "\n"


def run(config: Generate) -> None:
    """Print the prompt and what the model makes of it: one text as it comes, several when all have ended.

    How many tokens there were, and how fast, is written on standard error.

    Raises ValueError or OSError, in one sentence and before anything is printed, for a checkpoint, a prompt or
    parameters that cannot be used.
    """
    c, device = config, usable(config.device)
    if c.samples < 1:
        raise ValueError(f"generate: samples must be at least 1, got {c.samples}")
    given = read_prompt(c.prompt, c.prompt_file)
    model, tokenizer = checkpoint.load(c.checkpoint, c.impl, c.tokenizer)
    wide = c.dtype == "float32" or (c.dtype is None and not multiplies_bfloat16(device))
    model.to(device, torch.float32 if wide else None)
    model.eval().compute_dtype = torch.bfloat16 if c.dtype == "bfloat16" else None
    prompt = _beginning(tokenizer) if given is None else given
    ids = tokenizer.encode(prompt)
    ends = model.config.ends
    if device.type == "cpu":
        of, size = model.config, (model.compute_dtype or next(model.parameters()).dtype).itemsize
        position = 2 * of.num_key_value_heads * of.head_dim * of.num_hidden_layers * size
        positions = positions_held(model, len(ids), c.max_new_tokens)
        check_memory(f"generate: {c.samples} samples of {positions} tokens", c.samples * positions * position)
    started, count = time.perf_counter(), 0

    def until_the_end(row: Iterable[int]) -> Iterator[int]:
        nonlocal count
        for token in row:
            count += 1
            if token in ends:
                return
            yield token

    batch = ids.expand(c.samples, -1).to(device)
    tokens = stream(model, batch, c.max_new_tokens, c.temperature, c.top_k, c.top_p, c.min_p, c.seed, ends)
    if c.samples == 1:
        rows: Iterable[Iterable[int]] = [map(int, tokens)]
    else:  # none of no tokens
        rows = list(zip(*(token.tolist() for token in tokens), strict=True)) or [()] * c.samples
    for number, row in enumerate(rows):
        sys.stdout.write(SEPARATOR * bool(number) + prompt)
        for piece in pieces(tokenizer, ids.tolist(), until_the_end(row)):
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
    seconds = time.perf_counter() - started
    print(f"{count:,} tokens in {seconds:.1f} s, {count / seconds:,.0f} tokens/s", file=sys.stderr)
