"""What `-k` asks for where it names layers."""

import re

import pytest

from llama.layers import LAYERS


def asked_for(config: pytest.Config) -> tuple[str, ...]:
    """The layers that `-k rope` or `-k "rope or silu"` names: rope itself, and not rope_frequencies or "property"."""
    names = [part.strip() for part in config.option.keyword.split(" or ")]
    return tuple(names) if set(names) <= set(LAYERS) else ()


def is_about(item: pytest.Item, layers: tuple[str, ...]) -> bool:
    """Whether its own name has the name of such a layer as a word."""
    return any(re.search(rf"(?<![a-z0-9]){layer}(?![a-z0-9])", item.name) for layer in layers)
