"""`python -m llama generate`: a checkpoint continues a text, or many."""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llama.generation.loading import FromCheckpoint, load
from llama.generation.prompt import read_prompt, read_prompts
from llama.generation.serving import serve
from llama.generation.speculation import speculate
from llama.generation.stream import check, positions_held, stream
from llama.generation.whole_characters import pieces
from llama.machine.device import check_compiler, check_memory, usable
from llama.model.decoder import Decoder
from llama.model.llama import Llama
from llama.text.tokenizer import Tokenizer

SEPARATOR = "---\n"


@dataclass(frozen=True)
class Generate(FromCheckpoint):
    """Let a trained model continue a text."""

    prompt: str | None = None
    """The text to continue; - reads it from standard input. Without one a new text begins."""
    prompt_file: Path | None = None
    """A file with the text to continue."""
    prompts_file: Path | None = None
    """A file with a prompt in each line. All are continued, several at once, each as it would be alone; what was added
    to a prompt is written as a line of JSON as soon as it is whole."""
    at_once: int = 16
    """How many of these prompts are continued at the same time."""
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
    draft: Path | None = None
    """A smaller model of the same tokens. It proposes some, and the model checks them in one pass: the same text at
    temperature 0, and one of the same distribution otherwise."""
    draft_tokens: int = 4
    """How many tokens the smaller model proposes at a time."""
    compile: bool = False
    """Compute a token by programs that are made for the model. It needs a C++ compiler, and for a model of a new shape
    ten to twenty seconds."""


def run(config: Generate) -> None:
    """Print the prompt and what the model makes of it: one text as it comes, several when all have ended.

    How many tokens there were, and how fast, is written on standard error.

    Raises ValueError or OSError, in one sentence and before anything is printed, for a checkpoint, a prompt or
    parameters that cannot be used.
    """
    c = config
    if c.samples < 1:
        raise ValueError(f"generate: samples must be at least 1, got {c.samples}")
    _check_ways(c)
    given = None if c.prompts_file else read_prompt(c.prompt, c.prompt_file)
    prompts = read_prompts(c.prompts_file) if c.prompts_file else {}
    loaded, tokenizer = c.load()
    model = c.quantized(loaded)
    del loaded
    draft = load(c.draft, c.impl, c.tokenizer, c.dtype, usable(c.device))[0] if c.draft else None
    if c.compile:
        if not all(Decoder.suits(of) for of in (model, draft) if of):
            raise ValueError("generate: compile is for our fused layers on a CPU, in one dtype but float16")
        check_compiler(usable(c.device))
    started = time.perf_counter()
    if prompts:
        count = _write_lines(c, model, tokenizer, prompts)
    else:
        count = _write_texts(c, model, draft, tokenizer, _beginning(tokenizer) if given is None else given)
    seconds = time.perf_counter() - started
    print(f"{count:,} tokens in {seconds:.1f} s, {count / seconds:,.0f} tokens/s", file=sys.stderr)


def _check_ways(c: Generate) -> None:
    """Raise ValueError for flags that do not go together."""
    several = "prompts_file" if c.prompts_file else "samples" if c.samples > 1 else ""
    if c.prompts_file and (c.prompt is not None or c.prompt_file is not None):
        raise ValueError("generate: prompts_file and a prompt cannot both be given")
    if c.prompts_file and c.samples > 1:
        raise ValueError("generate: prompts_file and samples cannot both be given")
    for flag, is_given in (("draft", c.draft is not None), ("compile", c.compile)):
        if several and is_given:
            raise ValueError(f"generate: {flag} is for one text at a time, and cannot go with {several}")


def _beginning(tokenizer: Tokenizer) -> str:
    """What a text begins with: nothing where a token says so, else a new line, or the first token that there is."""
    if len(tokenizer.encode("")):
        return ""
    try:
        tokenizer.encode("\n")
    except ValueError:
        return tokenizer.decode([0])
    return "\n"


def _check_memory(c: Generate, model: Llama, texts: int, prompt: int) -> None:
    if next(model.parameters()).is_cpu:
        of, size = model.config, (model.compute_dtype or next(model.parameters()).dtype).itemsize
        position = 2 * of.num_key_value_heads * of.head_dim * of.num_hidden_layers * size
        positions = positions_held(model, prompt, c.max_new_tokens)
        check_memory(f"generate: {texts} samples of {positions} tokens", texts * positions * position)


def _sampling(c: Generate, model: Llama) -> dict[str, Any]:
    return {
        "temperature": c.temperature,
        "top_k": c.top_k,
        "top_p": c.top_p,
        "min_p": c.min_p,
        "seed": c.seed,
        "ends": model.config.ends,
    }


def _write_texts(c: Generate, model: Llama, draft: Llama | None, tokenizer: Tokenizer, prompt: str) -> int:
    """Write the continuations of one prompt; return how many tokens they have."""
    ids, ends, count = tokenizer.encode(prompt), model.config.ends, 0
    _check_memory(c, model, c.samples, len(ids))

    def until_the_end(row: Iterable[int]) -> Iterator[int]:
        nonlocal count
        for token in row:
            count += 1
            if token in ends:
                return
            yield token

    rows: Iterable[Iterable[int]]
    on_device, sampling = ids.to(next(model.parameters()).device), _sampling(c, model)
    if draft:
        steps = speculate(model, draft, on_device, c.max_new_tokens, c.draft_tokens, **sampling, compile=c.compile)
        rows = [(token for step in steps for token in step)]
    else:
        batch = on_device.expand(c.samples, -1)
        tokens = stream(model, batch, c.max_new_tokens, **sampling, compile=c.compile)
        # Of several, each has to wait for the others; none of no tokens.
        rows = [map(int, tokens)] if c.samples == 1 else _columns(tokens, c.samples)
    for number, row in enumerate(rows):
        sys.stdout.write(SEPARATOR * bool(number) + prompt)
        for piece in pieces(tokenizer, ids.tolist(), until_the_end(row)):
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
    return count


def _columns(tokens: Iterable[torch.Tensor], samples: int) -> list[tuple[int, ...]]:
    return list(zip(*(token.tolist() for token in tokens), strict=True)) or [()] * samples


def _write_lines(c: Generate, model: Llama, tokenizer: Tokenizer, prompts: dict[int, str]) -> int:
    """Write what is added to each of these prompts, as it ends; return how many tokens that are."""
    ids = {line: tokenizer.encode(prompt) for line, prompt in prompts.items()}
    for line, of in ids.items():
        try:
            check(model, len(of), c.max_new_tokens)
        except ValueError as error:
            raise ValueError(f"{error}, in line {line} of {c.prompts_file}") from None
    _check_memory(c, model, min(c.at_once, len(ids)), max(map(len, ids.values())))
    device, lines, count = next(model.parameters()).device, list(ids), 0
    new: dict[int, list[int]] = {line: [] for line in ids}

    def write(line: int) -> None:
        text = "".join(pieces(tokenizer, ids[line].tolist(), new[line]))
        fields = {"line": line, "prompt": prompts[line], "text": text}
        sys.stdout.write(json.dumps(fields, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    drawn = serve(
        model, (of.to(device) for of in ids.values()), c.max_new_tokens, **_sampling(c, model), at_once=c.at_once
    )
    if c.max_new_tokens == 0:
        for line in lines:
            write(line)
    for which, token, ended in drawn:
        count += 1
        if not (ended and token in model.config.ends):
            new[lines[which]].append(token)
        if ended:
            write(lines[which])
    return count
