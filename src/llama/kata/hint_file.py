"""What is said of a layer beside its contract: hints/CHAPTER/LAYER.toml, one file for each layer.

why = "why the layer is there in a Llama"
read = ["a paper or documentation, with its address"]
hints = ["a question", "a further one", "the decisive thought"]
learnt = "what was learnt, for when its tests pass"

[after]
name_of_a_bug = "a hint for somebody whose layer was diagnosed as this bug of tests/zoo/CHAPTER/LAYER.py"
"""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from llama.layers import CHAPTER

FOLDER = Path(__file__).parent / "hints"


@dataclass(frozen=True)
class HintFile:
    why: str
    read: list[str]
    hints: list[str]
    learnt: str
    after: dict[str, str] = field(default_factory=dict)

    def about(self, bugs: list[str]) -> list[str]:
        """The hints in their order: first those about these bugs, as far as there are any, then the general ones."""
        return [self.after[bug] for bug in bugs if bug in self.after] + self.hints


def read(layer: str) -> HintFile:
    """The hints file of that layer."""
    content = tomllib.loads((FOLDER / CHAPTER[layer] / f"{layer}.toml").read_text(encoding="utf-8"))
    # A text in several lines is one paragraph.
    paragraphs = {key: " ".join(text.split()) for key, text in content.items() if isinstance(text, str)}
    hints = [" ".join(text.split()) for text in content["hints"]]
    after = {bug: " ".join(text.split()) for bug, text in content.get("after", {}).items()}
    return HintFile(**{**content, **paragraphs, "hints": hints, "after": after})
