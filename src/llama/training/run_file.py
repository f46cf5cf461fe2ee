"""A run on disk: everything that training needs to go on as if nothing had happened, in one file.

    write("out/train", Saved(config, corpus, tensors), losses)     # run.safetensors, and losses.csv for people
    saved = read("out/train")

The tensors are the weights, the optimizer's averages and its count of steps, and the learning rate, gradient norm and
loss of every step. Batches, dropout and the schedule follow from the seed and the number of the step alone, so no
random generator has a state to be kept. The metadata are the config, the SHA-256 of the text, and one of everything
that the file holds: a disk that has changed a bit is found out.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llama.machine.safe_files import one_line, write_atomically
from llama.model.weights import check_finite
from llama.training.losses import COUNT, STEPS, VALIDATION, Losses, Step

FILE = "run.safetensors"
FORMAT, VERSION = "llama-kata run", "1"


@dataclass(frozen=True)
class Saved:
    """What a run is resumed from: its config as JSON has it, the SHA-256 of its text, and its tensors."""

    config: Mapping[str, Any]
    corpus: str
    tensors: Mapping[str, Tensor]
    tokens: str = ""
    """The SHA-256 of the ids of the text; nothing in a file from before there were other tokens than characters."""


def write(folder: Path, saved: Saved, losses: Losses) -> None:
    """Write the run and its losses as they are now, all of it or nothing; what was there before is replaced.

    Raises OSError in one sentence where they cannot be written, and ValueError where a tensor is not finite, since
    nobody could go on from there; in both cases the earlier files are still whole.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in (*saved.tensors.items(), *losses.tensors().items())}
    metadata = {"format": FORMAT, "version": VERSION, "config": json.dumps(saved.config)}
    metadata |= {"corpus": saved.corpus, "tokens": saved.tokens}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"train: {name} is not finite after {len(losses.steps)} steps; try smaller learning rates")
    metadata["sha256"] = _digest(metadata, tensors)

    def write_run(path: Path) -> None:
        copies = {name: tensor.clone() for name, tensor in tensors.items()}  # several may be views of one memory
        try:
            safetensors.torch.save_file(copies, path, metadata)
        except SafetensorError as error:
            raise OSError(one_line(error)) from error

    write_atomically(folder, {FILE: write_run, "losses.csv": losses.write_csv})


def read(folder: Path) -> Saved:
    """The unfinished run of a folder, in memory; the file itself stays as it is.

    Raises ValueError in one sentence where there is none, or where it is damaged or something else.
    """
    path = folder / FILE
    if not path.is_file():
        finished = (folder / "checkpoint" / "config.json").is_file()
        there = "holds a finished run and nothing to resume" if finished else f"has no {FILE} to resume"
        raise ValueError(f"train: {folder} {there}; leave out --resume to begin a run")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"train: {path} is not a run: its format is {metadata.get('format')!r:.99}")
            if metadata.get("version") != VERSION:
                raise ValueError(
                    f"train: {path} is of version {metadata.get('version')!r:.99}, only {VERSION} can be read"
                )
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  # not a mapping
    except SafetensorError as error:
        raise ValueError(f"train: {path} cannot be read ({one_line(error)})") from error
    promised = metadata.pop("sha256", None)
    if promised != (found := _digest(metadata, tensors)):
        raise ValueError(f"train: {path} is damaged: its contents have SHA-256 {found}, not {promised!r:.99}")
    config = _config(path, metadata.get("config", ""))
    return Saved(config, metadata.get("corpus", ""), tensors, metadata.get("tokens", ""))


def _config(path: Path, text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"train: {path}: its config is not JSON ({one_line(error)})") from error
    if not isinstance(config, dict):
        raise ValueError(f"train: {path}: its config must be an object, got {type(config).__name__}")
    return config


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of metadata, names, dtypes, shapes and values."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check(folder: Path, saved: Saved, expected: Mapping[str, Tensor], steps: int) -> Losses:
    """The losses of a run whose tensors fit those that are expected, of at most so many steps.

    Raises ValueError in one sentence, with the tensor and both shapes, where they do not, or are not finite.
    """
    path, tensors = folder / FILE, saved.tensors
    count, measured = tensors.get(COUNT), tensors.get(VALIDATION)
    done = int(count) if count is not None and count.dtype == torch.int64 and count.numel() == 1 else 0
    rows = len(measured) if measured is not None and measured.ndim else 0
    if not 0 <= done <= steps:
        raise ValueError(f"train: {path} does not fit: {COUNT!r} must lie in 0..{steps}, got {done}")
    lists = {
        STEPS: torch.empty(done, len(Step._fields), dtype=torch.float64, device="meta"),
        VALIDATION: torch.empty(max(rows, 1), 2, dtype=torch.float64, device="meta"),
    }
    should, got = (
        {name: f"{list(t.shape)} {t.dtype}".replace("torch.", "") for name, t in named.items()}
        for named in ({**expected, **lists}, tensors)
    )
    for name in [*should, *sorted(got.keys() - should)]:
        if should.get(name) != got.get(name):
            should_be, is_ = should.get(name, "absent"), got.get(name, "absent")
            raise ValueError(f"train: {path} does not fit: {name!r:.99} should be {should_be} and is {is_}")
    for name, tensor in tensors.items():
        if tensor.numel():
            check_finite(path, name, tensor)
    return Losses.from_tensors(tensors)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The folder is this process's own until it ends, however it ends; what other runs have left half written is gone.

    It is made where it is missing, and is gone again where nothing has been written into it.

    Raises ValueError where another process has it.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"train: another process trains in {folder}; wait, or give another --out") from None
    try:
        for path in (*folder.glob(".*.partial"), *(folder / "checkpoint").glob(".*.partial")):
            with suppress(OSError):
                path.unlink()
        yield
    finally:
        lock.release()
        with suppress(OSError):
            (folder / ".lock").unlink()
        for path in made:
            with suppress(OSError):  # it is not empty
                path.rmdir()


def forget(folder: Path) -> None:
    """Remove a run that has taken no step."""
    if (folder / FILE).exists():
        for name in (FILE, "losses.csv"):
            (folder / name).unlink(missing_ok=True)
