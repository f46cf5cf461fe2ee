"""From a name or a path to batches of windows.

corpus = load_corpus("tinyshakespeare")               # or "grammar", or the path of a text file
ids = CharTokenizer.from_text(corpus.text).encode(corpus.text)
train, validation, test = split(ids)                  # 80 / 10 / 10, in order
inputs, targets = Windows(train, 64).batch(32, seed=0, step=0)      # both [32 64]
"""

import functools
import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
import torch
from jaxtyping import Int64
from torch import Tensor

from llama import grammar

_STORIES = "https://huggingface.co/karpathy/tinyllamas/resolve/main/stories260K/"
FILES = {
    "tinyshakespeare.txt": (
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "stories260K.bin": (
        _STORIES + "stories260K.bin",
        "b0a507e7ad0f626624f17112325e66691f9076d622e1d3274d103d00299f2696",
    ),
    "tok512.bin": (_STORIES + "tok512.bin", "037cb335abb25d1fa9e8ecae30ed2a3a8ace9302862ebcdc05d51a6bbb10c312"),
}
"""The files that have a name here: where each is fetched from, and its SHA-256."""
PATIENCE = 10.0
"""Seconds after which the network is given up."""
GRAMMAR_CHARACTERS, GRAMMAR_SEED = 1_200_000, 1623  # a little more than TinyShakespeare; the year of the First Folio


@dataclass(frozen=True)
class Corpus:
    """A text, with what is known about it."""

    name: str
    text: str
    floor: float | None = None
    """The entropy rate in nats per character, where it is known: no honest loss lies below it in the long run."""
    notice: str | None = None
    """What the reader should be told about where the text came from."""


def load_corpus(name_or_path: str | Path) -> Corpus:
    """`tinyshakespeare`, `grammar`, or the path of a UTF-8 text file.

    TinyShakespeare is found as `named` says. With neither file nor network the corpus is `grammar`, and `notice`
    says so.

    Raises ValueError for an unknown name, a file that is empty, repeats one character or is not UTF-8, and a wrong
    TinyShakespeare; OSError for a file that cannot be read.
    """
    if str(name_or_path) == "tinyshakespeare":
        return _tinyshakespeare()
    if str(name_or_path) == "grammar":
        return _grammar()
    path = Path(name_or_path)
    if not path.is_file():
        raise ValueError(f"corpus: {path} is neither tinyshakespeare nor grammar nor a file")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"corpus: {path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"
        ) from None
    if not text:
        raise ValueError(f"corpus: {path} is empty")
    if text == text[0] * len(text):
        raise ValueError(f"corpus: {path} has no other character than {text[0]!r}, so there is nothing to predict")
    return Corpus(path.name, text)


def _grammar(notice: str | None = None) -> Corpus:
    return Corpus("grammar", _grammar_text(), grammar.entropy_rate(grammar.SPEECHES, "<speech>"), notice)


@functools.cache
def _grammar_text() -> str:
    return grammar.sample(grammar.SPEECHES, "<speech>", GRAMMAR_CHARACTERS, GRAMMAR_SEED)


def _tinyshakespeare() -> Corpus:
    try:
        return Corpus("tinyshakespeare", named("tinyshakespeare.txt").read_bytes().decode("utf-8"))
    except Unavailable as error:
        return _grammar(f"{error}. So the text is drawn from the built-in grammar.")


class Unavailable(OSError):
    """A file that is neither here nor to be had from the network."""


def named(name: str) -> Path:
    """The file of that name in FILES: in the folder LLAMA_DATA_DIR, or else fetched once and cached.

    Raises ValueError where another file lies there under that name, and Unavailable where it cannot be fetched.
    """
    url, sha256 = FILES[name]
    folder = os.environ.get("LLAMA_DATA_DIR")
    if folder and (local := Path(folder) / name).is_file():
        if (found := hashlib.sha256(local.read_bytes()).hexdigest()) != sha256:
            raise ValueError(f"data: {local} is not {name}: its SHA-256 is {found}, not {sha256}")
        return local
    try:
        return fetch(url, sha256)
    except (OSError, ValueError) as error:
        reason = "what came is not the file" if isinstance(error, ValueError) else type(error).__name__
        instead = f"{Path(folder) / name} does not exist" if folder else f"set LLAMA_DATA_DIR to a folder with {name}"
        raise Unavailable(f"{name} could not be fetched ({reason}); {instead}") from error


def fetch(url: str, sha256: str, cache: str | Path | None = None) -> Path:
    """The file at `url`, downloaded once into the cache and checked.

    Raises OSError where the network does not answer in time and ValueError where the file is not the one
    that it should be; in neither case is anything left in the cache.
    """
    pooch.get_logger().setLevel("ERROR")
    outcome: list[Path | Exception] = []

    def retrieve() -> None:
        try:
            downloader = pooch.HTTPDownloader(timeout=PATIENCE)
            folder = cache or pooch.os_cache("llama-kata")
            outcome.append(Path(pooch.retrieve(url, f"sha256:{sha256}", path=folder, downloader=downloader)))
        except Exception as error:  # handed to the caller below, whatever it is
            outcome.append(error)

    # A timeout of a request bounds each read, not the whole: a name server that does not answer, or a
    # server that sends a byte now and then, would hold up the run. Hence a thread that may be left behind.
    thread = threading.Thread(target=retrieve, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if not outcome:
        raise TimeoutError(f"no complete answer within {PATIENCE:.0f} seconds")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def split(
    ids: Int64[Tensor, "n"], fractions: Sequence[float] = (0.8, 0.1, 0.1)
) -> tuple[Int64[Tensor, "train"], Int64[Tensor, "validation"], Int64[Tensor, "test"]]:
    """Train, validation and test: consecutive parts that cover the text.

    Raises ValueError unless the three fractions are not negative and add up to 1.
    """
    if len(fractions) != 3 or not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-9):
        raise ValueError(f"split: fractions must be three that add up to 1, got {tuple(fractions)}")
    first, second = round(len(ids) * fractions[0]), round(len(ids) * (fractions[0] + fractions[1]))
    return ids[:first], ids[first:second], ids[second:]


class Windows:
    """All windows of a split: the i-th starts at token i, and its targets are its inputs shifted by one.

    Raises ValueError where the split has no room for one window and its last target.
    """

    def __init__(self, ids: Int64[Tensor, "n"], window: int):
        if window < 1:
            raise ValueError(f"windows: window must be at least 1, got {window}")
        if len(ids) <= window:
            raise ValueError(f"windows: a window of {window} needs {window + 1} tokens, the split has {len(ids)}")
        self.ids, self.window = ids, window

    def __len__(self) -> int:
        return len(self.ids) - self.window

    def at(self, starts: Int64[Tensor, "batch"]) -> tuple[Int64[Tensor, "batch window"], Int64[Tensor, "batch window"]]:
        """Inputs and targets of the windows that start there. Raises IndexError where none starts."""
        if not ((starts >= 0) & (starts < len(self))).all():
            raise IndexError(f"windows: starts must lie in 0..{len(self) - 1}, got {starts.tolist()}")
        tokens = self.ids[starts[:, None] + torch.arange(self.window + 1, device=self.ids.device)]
        return tokens[:, :-1], tokens[:, 1:]

    def batch(
        self, size: int, seed: int, step: int
    ) -> tuple[Int64[Tensor, "batch window"], Int64[Tensor, "batch window"]]:
        """The batch of that step: drawn from the seed and the step alone, so a resumed run sees the same.

        Raises ValueError for a size, a seed or a step that is negative.
        """
        if min(size, seed, step) < 0:
            raise ValueError(f"windows: size, seed and step must not be negative, got {size}, {seed} and {step}")
        starts = np.random.default_rng((seed, step)).integers(len(self), size=size)
        return self.at(torch.from_numpy(starts).to(self.ids.device))
