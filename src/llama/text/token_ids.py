"""Token ids as they come: a tensor, or a list."""

from jaxtyping import Int64
from torch import Tensor


def checked(token_ids: Int64[Tensor, "seq"] | list[int], vocab: int) -> list[int]:
    """The ids as a list. Raises IndexError for one outside 0..vocab-1."""
    ids = token_ids.tolist() if isinstance(token_ids, Tensor) else [int(i) for i in token_ids]
    if outside := [i for i in ids if not 0 <= i < vocab]:
        raise IndexError(f"tokenizer: ids must lie in 0..{vocab - 1}, got {outside[0]}")
    return ids
