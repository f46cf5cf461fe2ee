"""Tokens as text while they come: a token may hold a part of a character."""

from collections.abc import Iterable, Iterator

from llama.text.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"  # what decoding puts where bytes are no character, or not yet


def pieces(tokenizer: Tokenizer, prompt: list[int], tokens: Iterable[int]) -> Iterator[str]:
    """What the tokens add to the text of the prompt, bit by bit, each as soon as its characters are complete.

    Together they are the text of the tokens behind the prompt: a token may hold a part of a character, and may be
    written otherwise at the beginning of a text than within it.
    """
    # Decoded are only the tokens of the last bit and those after it, so that in a long text none takes longer.
    ids, start, written = list(prompt), len(prompt), len(tokenizer.decode(prompt))
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids)
        if len(text) > written and not text.endswith(REPLACEMENT):
            yield text[written:]
            ids, start = ids[start:], len(ids) - start
            written = len(tokenizer.decode(ids))
    yield tokenizer.decode(ids)[written:]
