"""Files that are found in LLAMA_DATA_DIR or fetched once, and checked by their SHA-256.

path = known_file("tinyshakespeare.txt")
"""

import hashlib
import os
import threading
from pathlib import Path

import pooch

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


class Unavailable(OSError):
    """A file that is neither here nor to be had from the network."""


def known_file(name: str) -> Path:
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
