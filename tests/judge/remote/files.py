"""The files that a layer's process finds: those of its submission, and Python without the layers of others."""

import os
import re
import shutil
import stat
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

LIBRARIES = (
    *("transformers", "diffusers", "xformers", "flash_attn", "liger_kernel", "vllm", "apex", "torchtune", "torchao"),
    *("litgpt", "unsloth", "timm", "fairseq", "lit_llama", "gpt_fast", "keras", "flax", "tensorflow", "mlx"),
    *("tinygrad", "x_transformers", "exllamav2", "llama_cpp", "ctransformers", "sglang", "optimum", "torchtitan"),
)
"""Whose layers nobody has written: they may not be imported."""
SYSTEM = (
    *("/usr", "/lib", "/lib64", "/bin", "/sbin", "/opt", "/sys/devices/system/cpu", "/nix/store", "/etc/alternatives"),
    *(
        "/etc/ld.so.cache",
        "/etc/ld.so.conf",
        "/etc/ld.so.conf.d",
        "/etc/localtime",
        "/etc/passwd",
        "/etc/nsswitch.conf",
    ),
)
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
LARGEST_FILE = 2**20
"""Bytes of a file of Python that is judged."""


def python_without(refused: Sequence[str]) -> list[str]:
    """All of the Python that runs here but our package and these libraries."""
    named = [sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")]
    named += [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    packages = {Path(path).resolve() for path in named if Path(path).is_dir()}
    found: list[str] = []
    new = [Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), *packages]
    for folder in new:  # which grows
        for entry in sorted(folder.iterdir()):
            place = entry.resolve()  # lib64 may be a link to lib
            if any(place in (package, *package.parents) for package in packages):
                if place not in (*packages, *new):
                    new.append(place)
            elif folder not in packages or re.split(r"[-.]", entry.name)[0] not in (*refused, "llama", "llama_kata"):
                found.append(str(place))
    return found


def copied(source: Path, into: Path) -> Path:
    """The files of Python of a submission: plain files of a usual size, and no link, which could lead anywhere.

    A file is handed in alone: beside it lie those of others.
    """
    for file in plain_files(source):
        place = into / (file.relative_to(source) if source.is_dir() else file.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    return into if source.is_dir() else into / source.name


def plain_files(source: Path) -> list[Path]:
    """Those that are looked at and copied."""
    if source.is_file():
        return [source] if source.stat().st_size <= LARGEST_FILE else []
    found = []
    for folder, folders, names in os.walk(source):  # which follows no links
        folders.sort()
        found += [path for name in sorted(names) if name.endswith(".py") and _is_plain(path := Path(folder, name))]
    return found


def _is_plain(file: Path) -> bool:
    status = file.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST_FILE
