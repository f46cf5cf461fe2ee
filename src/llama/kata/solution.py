"""Our own layer beside a learner's.

python -m llama solution rope                  # asks first
python -m llama solution rope --impl my_llama --yes
"""

import ast
import inspect
import itertools
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from llama import implementation
from llama.implementation.source import defined_by
from llama.kata.hint import source_of
from llama.layers import LAYERS, layer_module, unknown

GAP = " | "


@dataclass
class Solution:
    """Show our own layer in plain torch, beside yours."""

    layer: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="LAYER")]
    """The layer, such as rope."""
    impl: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Where yours stands: a folder, a .py file or a dotted module; by default what was tested last."""
    yes: bool = False
    """Do not ask."""


def run(solution: Solution) -> None:
    """Print both. Raises ValueError for a layer or implementation that there is not, and where nobody can be asked."""
    layer = solution.layer
    if layer not in LAYERS:
        raise ValueError(f"solution: {unknown(layer)}")
    theirs = _theirs(layer, source_of(solution.impl))
    if not solution.yes:
        if not sys.stdin.isatty():
            raise ValueError(f"solution: standard input is no terminal; --yes shows the solution of {layer} unasked")
        if not _agreed(f"Show the solution of {layer}? [y/N] "):
            return
    file = Path(inspect.getfile(layer_module(layer)))
    ours = _column("ours", file, _excerpt(file, ours_in(layer), decorated=False))
    print(_beside(theirs, ours) if theirs else "\n".join(ours))


def _agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D
        print()
        return False


def ours_in(layer: str) -> str:
    """The name of our function in that layer's file that is shown: `compose`, or the one in plain torch."""
    functions = _functions(ast.parse(inspect.getsource(layer_module(layer))))
    return next(name for name in ("compose", "vectorized", "naive") if name in functions)


def _theirs(layer: str, source: str) -> list[str]:
    """A learner's layer with a title; nothing where there is none, or a stub."""
    if not source:
        return []
    try:
        loaded = implementation.load(source)
        file = Path(loaded.files[layer]) if layer in loaded.layers and layer not in loaded.stubs else None
    except implementation.ImplementationError:
        file = Path(source) / f"{layer}.py" if Path(source).is_dir() else Path(source)
    return _column("yours", file, _excerpt(file, layer)) if file is not None and file.is_file() else []


def _column(whose: str, file: Path, text: str) -> list[str]:
    shown = os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
    title = f"{whose}: {shown}"
    return [title, "-" * len(title), *text.splitlines()]


def _excerpt(file: Path, function: str, decorated: bool = True) -> str:
    """That function and what it needs of the same file; the whole file where the function is no plain one in it.

    Without decorators nothing is shown of contracts and of what a compiler is told, which only our own layers have.
    """
    text = file.read_text(encoding="utf-8")
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return text
    named = {name: node for node in tree.body for name in defined_by(node)}
    if function not in _functions(tree):
        return text
    needed: set[str] = set()
    new = {function}
    while new:
        needed |= new
        parts = [part for name in new for part in ([named[name]] if decorated else _undecorated(named[name]))]
        used = {node.id for part in parts for node in ast.walk(part) if isinstance(node, ast.Name)}
        new = (used & named.keys()) - needed
    lines = text.splitlines()
    # The function itself first, then what it needs in the order of the file.
    nodes = sorted(
        (node for node in tree.body if needed & defined_by(node)), key=lambda node: node is not named[function]
    )
    return "\n\n".join("\n".join(lines[_first_line(node, decorated) - 1 : node.end_lineno]) for node in nodes)


def _undecorated(node: ast.stmt) -> list[ast.AST]:
    """The parts of a statement besides its decorators."""
    decorators = getattr(node, "decorator_list", [])
    return [part for part in ast.iter_child_nodes(node) if part not in decorators]


def _functions(tree: ast.Module) -> set[str]:
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def _first_line(node: ast.stmt, decorated: bool) -> int:
    decorators = node.decorator_list if decorated and isinstance(node, ast.FunctionDef | ast.ClassDef) else []
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _beside(left: list[str], right: list[str]) -> str:
    """Two columns where the terminal is wide enough for them, else one below the other."""
    width = max(map(len, left))
    if width + len(GAP) + max(map(len, right)) > shutil.get_terminal_size().columns:
        return "\n".join([*left, "", *right])
    pairs = itertools.zip_longest(left, right, fillvalue="")
    return "\n".join(f"{one:{width}}{GAP}{other}".rstrip() for one, other in pairs)
