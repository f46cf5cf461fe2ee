"""Files that are there whole or not at all, and JSON files that hold an object.

write_atomically("out/train/checkpoint", {"config.json": write_config, "model.safetensors": write_weights})
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

LARGEST_JSON = 16 * 2**20
"""Bytes. What is parsed takes many times as much memory, and no config or index comes near."""


def write_atomically(folder: str | Path, writers: Mapping[str, Callable[[Path], object]]) -> None:
    """Write files of a folder, which is made where it is missing.

    Each writer is called with a temporary path beside its file. When all have written, and all of it is on the
    disk, the files take their names in the order of `writers`. So a file that can be seen is whole, and where a
    writer fails (the disk is full, the folder may not be written) the earlier files stay as they were.

    Raises OSError in one sentence where a file cannot be written.
    """
    folder = Path(folder)
    temporary = {name: folder / f".{name}.{os.getpid()}.partial" for name in writers}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, write in writers.items():
            write(temporary[name])
            _flush(temporary[name])
        for name, path in temporary.items():
            path.replace(folder / name)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            _flush(folder)
    except OSError as error:
        raise OSError(f"checkpoint: {folder} cannot be written: {error.strerror or error}") from error
    finally:
        for path in temporary.values():
            with suppress(OSError):
                path.unlink()


def check_writable(folder: str | Path) -> None:
    """Raise OSError, in one sentence, where a folder may not be written or could not be made. Nothing is written."""
    path = Path(folder)
    there = next((place for place in (path, *path.parents) if place.exists()), path)
    if there.is_file():
        raise OSError(f"{there} is a file, and must be a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OSError(f"{there} may not be written")


def _flush(path: Path) -> None:
    """Wait until the disk has it: a name may otherwise outlive a power cut that its contents do not."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: str | Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises ValueError in one sentence where there is no such file, or it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint: {path.parent} has no {path.name}")
    if (size := path.stat().st_size) > LARGEST_JSON:
        raise ValueError(f"checkpoint: {path} has {size:,} bytes, more than the {LARGEST_JSON:,} that are read as JSON")
    try:
        found = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8; nested more deeply than Python's stack
        raise ValueError(f"checkpoint: {path} is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"checkpoint: {path} must hold an object, got {type(found).__name__}")
    return found


def one_line(error: BaseException | str) -> str:
    """What a library says of a file, which may quote what stands in it."""
    return " ".join(str(error).split())
