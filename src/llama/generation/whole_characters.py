"""Tokens as text while they come: a token may be only part of a character, so characters are written when whole."""

from collections.abc import Iterable, Iterator

from llama.text.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"  # what decoding puts where bytes are no character, or not yet


def pieces(tokenizer: Tokenizer, prompt: list[int], tokens: Iterable[int]) -> Iterator[str]:
    """The text that the tokens add to the prompt, in pieces, each as soon as its characters are complete.

    A token is decoded together with those before it: at the beginning of a text it may be written differently.
    """
    # Only the last piece and what follows it are decoded, so a token takes as long in a long text as in a short one.
    ids, start, written = list(prompt), len(prompt), len(tokenizer.decode(prompt))
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids)
        if len(text) > written and not text.endswith(REPLACEMENT):
            yield text[written:]
            ids, start = ids[start:], len(ids) - start
            written = len(tokenizer.decode(ids))
    yield tokenizer.decode(ids)[written:]
