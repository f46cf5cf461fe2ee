"""Where tensors live (cpu, cuda or mps), what is fast there, and how much fits."""

import os

import torch


def usable(name: str) -> torch.device:
    """The device of that name. Raises ValueError where there is none here."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has tensors, but no values
    except (RuntimeError, AssertionError) as error:  # torch without CUDA answers with an AssertionError
        reason = str(error).splitlines()[0].partition(". ")[0]  # torch may go on with advice to its own developers
        raise ValueError(f"device: {name} cannot be used here ({reason})") from error
    return device


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether its instructions multiply bfloat16, rather than take many times as long to imitate it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    # What torch itself asks before it hands a product to oneDNN; older versions have no public name for it.
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def check_compiler(device: torch.device) -> None:
    """Raise ValueError where torch.compile does not work, which for a CPU needs a C++ compiler."""
    try:
        torch.compile(lambda x: -x)(torch.ones(1, device=device))
    except RuntimeError as error:
        raise ValueError(f"compile: torch.compile does not work here ({str(error).splitlines()[0]})") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory could not be had; on the CPU and on MPS torch has no class for that."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error) for words in ("allocate memory", "out of memory")
    )


def check_memory(what: str, needed: int) -> None:
    """Raise ValueError where what needs so many bytes on the CPU cannot fit: the system may end us without a word."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows does not say
        there = 2**40
    if needed > there:
        raise ValueError(f"{what} would take {needed / 2**30:.3g} GiB of memory or more, of {there / 2**30:.3g}")
