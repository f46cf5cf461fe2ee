"""Several tokens for one pass of a large model: a small one proposes them, and the large one checks them all at once.

    for token in speculate(model, draft, prompt_ids, 200, draft_tokens=4, temperature=0.8): ...

A pass over five tokens takes far less time than five passes, since its weights are read once. How many of the
proposed tokens are kept, speculative_accept decides, such that the text is distributed as the large model's own; at
temperature 0 it is the same text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llama.generation.drawing import Drawing, generator, uniform
from llama.generation.stream import CHUNK, check, has_cache, kept, positions_held
from llama.model.batch_decoder import BatchDecoder
from llama.model.compiled_decoder import FEW, CompiledDecoder
from llama.model.decoder import Decoder
from llama.model.kv_cache import KVCache
from llama.model.language_model import LanguageModel, evaluating
from llama.model.llama import Llama


def speculate(
    model: LanguageModel,
    draft: LanguageModel,
    token_ids: Int64[Tensor, "seq"],
    max_new_tokens: int,
    draft_tokens: int = 4,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
    ends: Sequence[int] = (),
    compile: bool = False,
) -> Iterator[list[int]]:
    """Yield the next tokens, some at a time, until there are max_new_tokens of them or one is among `ends`.

    With `compile`, the draft proposes and the model checks by programs that are made for them (compiled_decoder.py);
    the model without them where it checks more than FEW tokens at a time.

    Raises ValueError, before anything is computed, where `stream` does, for draft_tokens < 1, for models of different
    vocabularies, and for one that has no cache.
    """
    if token_ids.ndim != 1:
        raise ValueError(f"generate: token_ids must be [seq], got {list(token_ids.shape)}")
    if draft_tokens < 1:
        raise ValueError(f"generate: draft_tokens must be at least 1, got {draft_tokens}")
    if (own := model.config.vocab_size) != (other := draft.config.vocab_size):
        raise ValueError(f"generate: the draft must have the model's vocab_size of {own}, got {other}")
    if not (has_cache(model) and has_cache(draft)):
        raise ValueError("generate: a draft needs models with a cache, and layers that are composed by this project")
    check(model, len(token_ids), max_new_tokens)
    drawing = Drawing(model, temperature, top_k, top_p, min_p)
    return _speculate(model, draft, token_ids, max_new_tokens, draft_tokens, drawing, generator(seed), ends, compile)


class _Reader:
    """A model and what it has read of the text: first the prompt, then `tokens` at a time."""

    def __init__(self, model: Llama, positions: int, tokens: int, compile: bool):
        self.model, self.positions = model, min(positions, model.config.max_position_embeddings)
        self.tokens = tokens
        self.decoder: Decoder | None = None
        self.batch_decoder: BatchDecoder | None = None
        if compile and tokens <= FEW and Decoder.suits(model):
            self.decoder = CompiledDecoder(model, self.positions, tokens)
        elif tokens == 1 and Decoder.suits(model):
            self.decoder = Decoder(model, self.positions)
        elif tokens > 1 and BatchDecoder.suits(model):
            self.batch_decoder = BatchDecoder(model)
        self.cache = self._empty()

    def _empty(self) -> KVCache:
        weight = next(self.model.parameters())
        dtype = self.model.compute_dtype or weight.dtype
        return KVCache(self.model.config, 1, dtype, weight.device, self.positions)

    def forget(self) -> None:
        """Begin anew: the text has lost its older half."""
        self.cache.rewind(0)

    def read(self, seen: list[int], rows: int = 1) -> Float[Tensor, "rows vocab"]:
        """Read what is new in the text; return the logits after each of its last so many tokens."""
        times = -(-(len(seen) - self.cache.length) // self.tokens)
        start = len(seen) - times * self.tokens
        if self.decoder and self.cache.length and start >= 0:
            # Where fewer tokens are new than are read at a time, those before them are read again.
            self.cache.rewind(start)
            parts = (seen[i : i + self.tokens] for i in range(start, len(seen), self.tokens))
            return torch.cat([self.decoder.several(part, self.cache) for part in parts])[-rows:]
        ids = torch.tensor([seen[self.cache.length :]], device=self.cache.memory.device)
        for part in self._chunks(ids, rows):
            if self.batch_decoder:
                logits = self.batch_decoder(part, self.cache, rows)
            else:
                with evaluating(self.model):
                    logits = self.model(part, self.cache)
        return logits[0, -rows:]

    @staticmethod
    def _chunks(ids: Tensor, rows: int) -> Sequence[Tensor]:
        """Chunks of a prompt, with the last so many tokens in one."""
        whole = max(0, (ids.shape[1] - rows) // CHUNK * CHUNK)
        return [*ids[:, :whole].split(CHUNK, dim=1), ids[:, whole:]] if whole else [ids]


@torch.no_grad()
def _speculate(
    model: Llama,
    draft: Llama,
    token_ids: Int64[Tensor, "seq"],
    max_new_tokens: int,
    draft_tokens: int,
    drawing: Drawing,
    random: torch.Generator,
    ends: Sequence[int],
    compile: bool,
) -> Iterator[list[int]]:
    if max_new_tokens == 0:
        return
    context = model.config.max_position_embeddings
    positions = positions_held(model, len(token_ids), max_new_tokens)
    target = _Reader(model, positions, min(draft_tokens + 1, max_new_tokens), compile)
    proposer = _Reader(draft, positions, 1, compile)
    of_draft = replace(drawing, model=draft)
    seen, count = token_ids.tolist(), 0
    while count < max_new_tokens:
        if (left := kept(len(seen), context)) < len(seen):
            seen = seen[-left:]
            target.forget()
            proposer.forget()
        # As many as are wanted and have room, in both models; the last token comes from the target alone.
        k = max(0, min(draft_tokens, max_new_tokens - count - 1, context - len(seen), proposer.positions - len(seen)))
        proposed, drafted = list(seen), []
        for _ in range(k):
            drafted.append(of_draft.filtered(proposer.read(proposed)))
            proposed.append(int(drawing.drawn(drafted[-1], uniform(random, 1))))
        logits = drawing.filtered(target.read(proposed, k + 1))
        exact = torch.float32 if logits.is_mps else torch.float64
        u, v = (uniform(random, n).to(logits.device, exact) for n in (k, 1))
        ids = torch.tensor(proposed[len(seen) :], dtype=torch.int64, device=logits.device)
        rows = torch.cat(drafted) if drafted else logits[:0]
        new = model.layers.speculative_accept(rows, logits, ids, u, v[0]).tolist()
        if ended := next((i for i, token in enumerate(new, 1) if token in ends), 0):
            new = new[:ended]
        yield new
        if ended:
            return
        seen, count = seen + new, count + len(new)
        for reader in (target, proposer):  # the last token is still to be read, and what was not kept forgotten
            reader.cache.rewind(min(reader.cache.length, len(seen) - 1))
