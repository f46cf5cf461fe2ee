"""Several texts at once, of different lengths, each the same as it would be alone.

    for which, token, ended in serve(model, [ids_of_a, ids_of_b, ids_of_c], 200, at_once=2): ...

A token costs the time in which the weights are read; texts that are written at the same time share it. As soon as a
text has ended, the next one begins; while its prompt is read, a chunk at a time, the others go on. The keys and
values lie in pages (paged_cache.py), so that no text has to wait for memory that another one holds in reserve.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llama.generation.drawing import Drawing, generator, uniform
from llama.generation.stream import CHUNK, check, has_cache, kept, stream
from llama.model.batch_decoder import BatchDecoder
from llama.model.language_model import LanguageModel, evaluating
from llama.model.llama import Llama
from llama.model.paged_cache import PagedSequence, Pages


class Drawn(NamedTuple):
    """A token that was drawn."""

    which: int
    """0 for the first prompt, 1 for the second, and so on."""
    token: int
    ended: bool
    """Whether it is the last token of its text."""


class _Text:
    """A text that is being written."""

    def __init__(self, which: int, prompt: list[int], sequence: PagedSequence, seed: int):
        self.which, self.seen, self.sequence = which, prompt, sequence
        self.unread, self.count, self.random = list(prompt), 0, generator(seed)

    def append(self, token: int, context: int) -> None:
        """Go on from that token; where the context is full, from the newer half of what was seen."""
        self.count += 1
        self.seen.append(token)
        self.unread = [token]
        if (left := kept(len(self.seen), context)) < len(self.seen):
            self.sequence.release()
            self.seen = self.seen[-left:]
            self.unread = list(self.seen)


def serve(
    model: LanguageModel,
    prompts: Iterable[Int64[Tensor, "seq"]],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
    ends: Sequence[int] = (),
    at_once: int = 16,
    chunk: int = CHUNK,
) -> Iterator[Drawn]:
    """Yield the tokens of all texts, as they are drawn; each text is what `stream` makes of its prompt alone.

    Prompts are taken from the iterable as there is room for them; `at_once` texts are written at the same time.

    Raises ValueError for wrong sampling parameters before anything is computed, and for a prompt that is empty or
    longer than the context when its turn comes.
    """
    if at_once < 1:
        raise ValueError(f"generate: at_once must be at least 1, got {at_once}")
    check(model, 1, max_new_tokens, chunk)
    drawing = Drawing(model, temperature, top_k, top_p, min_p)
    generator(seed)
    if max_new_tokens == 0:
        return iter(())
    if not has_cache(model):  # then a pass reads everything again, and nothing is gained by sharing it
        return (
            Drawn(which, token, count == max_new_tokens or token in ends)
            for which, ids in enumerate(prompts)
            for count, token in enumerate(
                map(int, stream(model, ids[None], max_new_tokens, temperature, top_k, top_p, min_p, seed, ends)), 1
            )
        )
    return _together(model, prompts, max_new_tokens, drawing, seed, ends, at_once, chunk)


@torch.no_grad()
def _together(
    model: Llama,
    prompts: Iterable[Int64[Tensor, "seq"]],
    max_new_tokens: int,
    drawing: Drawing,
    seed: int,
    ends: Sequence[int],
    at_once: int,
    chunk: int,
) -> Iterator[Drawn]:
    weight, context = next(model.parameters()), model.config.max_position_embeddings
    pages = Pages(model.config, model.compute_dtype or weight.dtype, weight.device)
    decoder = BatchDecoder(model) if BatchDecoder.suits(model) else None

    def logits(texts: Sequence[_Text], seq: int) -> Float[Tensor, "texts vocab"]:
        """After the next so many tokens of each of these texts."""
        ids = torch.tensor([text.unread[:seq] for text in texts], device=weight.device)
        for text in texts:
            del text.unread[:seq]
        cache = pages.cache([text.sequence for text in texts], seq)
        if decoder:
            return decoder(ids, cache)[:, -1]
        with evaluating(model):
            return model(ids, cache)[:, -1]

    waiting, running = enumerate(prompts), list[_Text]()
    while True:
        while len(running) < at_once and (following := next(waiting, None)):
            which, ids = following
            check(model, len(ids), max_new_tokens)
            running.append(_Text(which, ids.tolist(), pages.sequence(), seed))
        if not running:
            return
        ready, found = [], []
        # A chunk of one prompt, or as much of several, so that nobody has to wait for long; then a token for all who
        # have no more to read.
        if reading := [text for text in running if len(text.unread) > 1]:
            seq = min(chunk, len(reading[0].unread))
            longer = [text for text in reading if len(text.unread) >= seq][: max(1, chunk // seq)]
            after = logits(longer, seq)
            whole = [i for i, text in enumerate(longer) if not text.unread]
            ready += [longer[i] for i in whole]
            found.append(after[whole])
        if together := [text for text in running if len(text.unread) == 1]:
            ready += together
            found.append(logits(together, 1))
        if not ready:
            continue
        u = torch.cat([uniform(text.random, 1) for text in ready])
        for text, token in zip(ready, drawing(torch.cat(found), u).tolist(), strict=True):
            text.append(token, context)
            ended = text.count == max_new_tokens or token in ends
            if ended:
                text.sequence.release()
                running.remove(text)
            yield Drawn(text.which, token, ended)
