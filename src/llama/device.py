"""Where tensors live (cpu, cuda or mps), and what is fast there."""

import torch


def usable(name: str) -> torch.device:
    """The device of that name. Raises ValueError where there is none here."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has tensors, but no values
    except (RuntimeError, AssertionError) as error:  # torch without CUDA answers with an AssertionError
        raise ValueError(f"device: {name} cannot be used here ({str(error).splitlines()[0]})") from error
    return device


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether its instructions multiply bfloat16, rather than take some fifty times as long to imitate it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    # What torch itself asks before it hands a product to oneDNN; older versions have no public name for it.
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
