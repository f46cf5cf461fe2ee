"""The stand-in for our package that a layer finds: how layers are loaded, and the layers beneath it, no others.

stand_in("decoder_layer", folder)    # folder/llama, with rms_norm and without llama
everything(folder)                   # the whole of it, with the zoo and the peers, which are made of it
"""

import ast
import shutil
from pathlib import Path

import llama
from llama.layers import CHAPTER, LAYERS

SOURCE = Path(llama.__file__).parent
TESTS = Path(__file__).parents[2]
ROOMS = ("__init__.py", "adapt.py", "contract", "implementation", "layers", "model/__init__.py", "model/config.py")
WITHHELD = '''"""{layer} is withheld: a layer that is judged computes it by itself, or is beneath it."""


def withheld(*args, **kwargs):
    raise NotImplementedError("{layer} is withheld: a layer that is judged computes by itself")


{names} = withheld
'''


def stand_in(layer: str, folder: Path) -> None:
    """Write it there."""
    for room in ROOMS:
        place = folder / "llama" / room
        place.parent.mkdir(parents=True, exist_ok=True)
        if (SOURCE / room).is_dir():
            shutil.copytree(SOURCE / room, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(SOURCE / room, place)
    for above in LAYERS[LAYERS.index(layer) :]:
        path = folder / "llama" / "layers" / CHAPTER[above] / f"{above}.py"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        names = ["compose"] if "compose" in functions else ["naive", "vectorized", "fused"]
        path.write_text(WITHHELD.format(layer=above, names=" = ".join(names)), encoding="utf-8")


def everything(folder: Path) -> None:
    """Write our package there, and what of the tests stands for code of others."""
    without_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SOURCE, folder / "llama", ignore=without_caches)
    (folder / "tests").mkdir()
    shutil.copy(TESTS / "__init__.py", folder / "tests" / "__init__.py")
    for room in ("zoo", "peers", "cases"):
        shutil.copytree(TESTS / room, folder / "tests" / room, ignore=without_caches)
