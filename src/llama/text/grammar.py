"""Text without end and without a network, whose entropy is known exactly.

A small stochastic grammar of speeches in the manner of Shakespeare. Each symbol has alternatives with
weights; an alternative is a sequence of symbols and plain text. No symbol contains itself, and no two
ways of choosing give the same speech, so a text says exactly which choices made it. Therefore

    entropy rate = H(speech) / E[length of a speech]          (nats per character)

    H(symbol) = sum over alternatives of  p · (-ln p + sum of H of its parts)
    E[length] = sum over alternatives of  p · (sum of E[length] of its parts)

No model can predict this text with a lower loss in the long run, and a good one comes close.

Source: Shannon 1948, section 7 (entropy of a source); Grenander 1967 (entropy of a stochastic grammar).
"""

import itertools
import math
import random
from collections.abc import Mapping, Sequence

# symbol -> (weight, alternative); in an alternative, what is a symbol is replaced, the rest is text.
Grammar = Mapping[str, Sequence[tuple[float, tuple[str, ...]]]]


def _words(text: str) -> list[tuple[float, tuple[str, ...]]]:
    """Alternatives of one word each, the earlier ones likelier (Zipf: the n-th with weight 1/n)."""
    return [(1 / n, (word,)) for n, word in enumerate(text.split(), start=1)]


SPEECHES: Grammar = {
    "<speech>": [(1, ("<speaker>", ":\n", "<verse>", "\n"))],
    "<verse>": [(3, ("<line>",)), (4, ("<line>", "<line>")), (2, ("<line>", "<line>", "<line>", "<line>"))],
    "<line>": [
        (4, ("<opening>", " ", "<noun group>", " ", "<verb>", " ", "<noun group>", "<end>\n")),
        (3, ("The ", "<noun>", " of ", "<noun>", " doth ", "<verb>", " ", "<noun group>", "<end>\n")),
        (2, ("What ", "<noun>", " is this, that ", "<verb>", "s ", "<noun group>", "?\n")),
        (2, ("Come, ", "<adjective>", " ", "<person>", ", and ", "<verb>", " ", "<noun group>", "<end>\n")),
        (1, ("<exclamation>", ", ", "<person>", "! ", "<verb>", " not ", "<noun group>", "<end>\n")),
    ],
    "<noun group>": [(3, ("<possessive>", " ", "<noun>")), (2, ("<possessive>", " ", "<adjective>", " ", "<noun>"))],
    "<end>\n": [(5, (",\n",)), (4, (".\n",)), (1, (";\n",)), (1, ("!\n",))],
    "<speaker>": _words("ORLANDO ROSALIND CORIN PORTIA BASSANIO VIOLA FESTE HERMIA LEAR KENT EDGAR BIANCA"),
    "<opening>": _words("Let Then Now Since Though When If Where Till Lest"),
    "<possessive>": _words("my thy the his our her this their that no"),
    "<person>": _words("lord lady friend cousin father sister fool gentle-man master nurse"),
    "<exclamation>": _words("O Alas Fie Hark Nay Peace"),
    "<noun>": _words(
        "heart love eye night crown sword tongue hand grief king blood heaven honour sleep fortune time rose "
        "death summer moon shadow ghost breath tear winter"
    ),
    "<adjective>": _words(
        "sweet fair noble gentle false cruel bitter proud golden weary silent mortal pale merry ancient"
    ),
    "<verb>": _words(
        "love bear hold keep fear follow know break lose mourn spurn weigh trust crown wake shun forget steal"
    ),
}


def sample(grammar: Grammar, start: str, characters: int, seed: int) -> str:
    """Independent draws of `start`, one after the other, until there are at least so many characters."""
    choices = random.Random(seed)
    alternatives = {symbol: [parts for _, parts in grammar[symbol]] for symbol in grammar}
    cumulative = {symbol: list(itertools.accumulate(weight for weight, _ in grammar[symbol])) for symbol in grammar}
    text: list[str] = []
    length = 0
    while length < characters:
        waiting = [start]
        while waiting:
            symbol = waiting.pop()
            if symbol in grammar:
                parts = choices.choices(alternatives[symbol], cum_weights=cumulative[symbol])[0]
                waiting.extend(reversed(parts))
            else:
                text.append(symbol)
                length += len(symbol)
    return "".join(text)


def entropy_rate(grammar: Grammar, start: str) -> float:
    """Nats per character of independent draws of `start`; see the formula above."""

    def entropy_and_length(symbol: str) -> tuple[float, float]:
        if symbol not in grammar:
            return 0.0, len(symbol)
        total = sum(weight for weight, _ in grammar[symbol])
        entropy, length = 0.0, 0.0
        for weight, parts in grammar[symbol]:
            p, inner = weight / total, [entropy_and_length(part) for part in parts]
            entropy += p * (-math.log(p) + sum(h for h, _ in inner))
            length += p * sum(n for _, n in inner)
        return entropy, length

    entropy, length = entropy_and_length(start)
    return entropy / length
