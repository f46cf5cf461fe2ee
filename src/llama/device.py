"""Where tensors live: cpu, cuda or mps."""

import torch


def usable(name: str) -> torch.device:
    """The device of that name. Raises ValueError where there is none here."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has tensors, but no values
    except (RuntimeError, AssertionError) as error:  # torch without CUDA answers with an AssertionError
        raise ValueError(f"device: {name} cannot be used here ({str(error).splitlines()[0]})") from error
    return device
