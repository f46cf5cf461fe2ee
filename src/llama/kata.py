"""Kata mode: a file to write for each layer, made from that layer's own signature and contract.

python -m llama kata my_llama                 # my_llama/softmax.py, my_llama/cross_entropy.py, ...
python -m llama kata my_llama rope attention  # these two alone
python -m llama kata my_llama --status        # how far it has come
"""

import ast
import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from llama import board, implementation
from llama.files import check_writable
from llama.implementation import INTERNAL
from llama.layers import LAYERS


@dataclass
class Kata:
    """Write a stub for each layer that a folder lacks, or show how far the layers in it have come."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Where the layers stand. Files that exist are never overwritten."""
    layers: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """The layers to write stubs of; all of them by default."""
    status: bool = False
    """Print the board of the last test runs instead."""


def run(kata: Kata) -> None:
    """Write the stubs, or print the board. Raises ValueError for a layer that there is not, OSError for the folder."""
    if unknown := [layer for layer in kata.layers if layer not in LAYERS]:
        raise ValueError(f"kata: there is no layer {', '.join(unknown)}; the layers are {', '.join(LAYERS)}")
    if kata.folder.suffix == ".py" or kata.folder.is_file():
        raise ValueError(f"kata: {kata.folder} is a file, and must be a folder")
    if kata.folder.resolve() == Path.cwd():
        raise ValueError(
            f"kata: {str(kata.folder)!r} is where Python looks first, and llama.py there would hide the project; "
            "give another folder, such as my_llama"
        )
    if kata.status and not kata.folder.exists():
        raise ValueError(f"kata: there is no {kata.folder} yet; python -m llama kata {kata.folder} writes it")
    if kata.status:
        print(board.load(implementation.load(kata.folder)))
        return
    check_writable(kata.folder)
    kata.folder.mkdir(parents=True, exist_ok=True)
    wanted = kata.layers or LAYERS
    written = [layer for layer in wanted if _write(kata.folder / f"{layer}.py", stub(layer, str(kata.folder)))]
    kept = [layer for layer in wanted if layer not in written]
    if written:
        print(f"{kata.folder}: wrote {', '.join(f'{layer}.py' for layer in written)}")
    if kept:
        print(f"{kata.folder}: kept {', '.join(f'{layer}.py' for layer in kept)} unchanged")
    first = written[0] if written else wanted[0]
    print(f"Next: write {kata.folder / first}.py, then pytest --impl {kata.folder} -k {first}")


def _write(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def stub(layer: str, folder: str = "my_llama") -> str:
    """The text of a file in which `layer` has its contract and its signature, and raises NotImplementedError."""
    module = importlib.import_module(f"llama.layers.{layer}")
    tree = ast.parse(inspect.getsource(module))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    composed = layer in implementation.COMPOSED
    function = functions["compose"] if composed else functions.get("vectorized", functions["naive"])
    parameters = [p for p in _parameters(function) if p.partition(":")[0] not in INTERNAL]
    paragraphs = [p for p in (inspect.getdoc(module) or "").split("\n\n") if "`compose`" not in p]
    if composed:
        paragraphs.append("The layers beneath are there already, and right: call them as layers.linear(x, weight).")
    paragraphs.append(f"The numbers on paper: tests/unit/test_{layer}.py\nTry it: pytest --impl {folder} -k {layer}")
    returns = _source(function.returns)
    lines = [
        '"""' + "\n\n".join(paragraphs),
        '"""',
        "",
        *_imports(tree, function),
        *(
            ["", "from llama import implementation", "", 'layers = implementation.load("vectorized")']
            if composed
            else []
        ),
        "",
        "",
        f"def {layer}(",
        *(f"    {parameter}," for parameter in parameters),
        f") -> {returns}:",
        f'    raise NotImplementedError("{layer} is not written yet: read tests/unit/test_{layer}.py")',
    ]
    return "\n".join(lines) + "\n"


def _parameters(function: ast.FunctionDef) -> list[str]:
    """`x: Float[Tensor, '... d_model']`, `eps: float = 1e-05`: each as it stands in the signature."""
    arguments = function.args.args
    defaults = [None] * (len(arguments) - len(function.args.defaults)) + list(function.args.defaults)
    return [
        _source(argument) + (f" = {_source(default)}" if default is not None else "")
        for argument, default in zip(arguments, defaults, strict=True)
    ]


def _source(node: ast.AST | None) -> str:
    return ast.unparse(node).replace("'", '"') if node is not None else "None"


def _imports(tree: ast.Module, function: ast.FunctionDef) -> list[str]:
    """The imports of the layer's file that its signature needs."""
    annotations = [function.returns, *(argument.annotation for argument in function.args.args)]
    used = {node.id for a in annotations if a is not None for node in ast.walk(a) if isinstance(node, ast.Name)}
    found = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names if alias.name in used]
            found += [f"from {node.module} import {', '.join(names)}"] if names else []
    return found
