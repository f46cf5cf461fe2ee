"""The file that a learner begins with: a layer's contract and signature, made from our own layer and its hints file."""

import ast
import inspect
import textwrap
from collections.abc import Sequence

from llama.kata import hint_file
from llama.kata.board import unit_test
from llama.layers import INTERNAL, LAYERS, layer_module, takes_tensors

WIDTH = 104
"""Columns of a paragraph, as of the contracts."""


def stub(layer: str, folder: str = "my_llama", forbidden: Sequence[str] = ()) -> str:
    """The text of a file in which `layer` has its contract and its signature, and raises NotImplementedError."""
    module = layer_module(layer)
    tree = ast.parse(inspect.getsource(module))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    composed = "compose" in functions
    function = functions["compose"] if composed else functions.get("vectorized", functions["naive"])
    imports = _imports(layer, tree, function, composed)
    lines = [
        '"""' + "\n\n".join(_paragraphs(layer, functions, folder, forbidden)),
        '"""',
        *([""] if imports else []),
        *imports,
        *(["", 'layers = implementation.load("vectorized")'] if composed else []),
        "",
        "",
        f"def {layer}(",
        *(f"    {_parameter(argument, default)}," for argument, default in _parameters(function)),
        *_returned(function.returns),
        f'    raise NotImplementedError("{layer} is not written yet: read {unit_test(layer)}")',
    ]
    return "\n".join(lines) + "\n"


def _paragraphs(layer: str, functions: dict[str, ast.FunctionDef], folder: str, forbidden: Sequence[str]) -> list[str]:
    """The contract, what may be called, why the layer is there, and where to go from here."""
    known = hint_file.read(layer)
    contract = inspect.getdoc(layer_module(layer)) or ""
    paragraphs = [paragraph for paragraph in contract.split("\n\n") if "`compose`" not in paragraph]
    if "compose" in functions:
        beneath = "\n".join(f"    {call}" for call in _beneath(functions))
        paragraphs += ["The layers beneath are there already, and right:", beneath]
    if forbidden:
        paragraphs.append(f"Forbidden in this assignment: {', '.join(forbidden)}.")
    return [
        *paragraphs,
        textwrap.fill(f"Why: {known.why}", WIDTH, break_on_hyphens=False),
        "Read:\n" + "\n".join(f"    {source}" for source in known.read),
        f"Rules that hold for every layer: docs/rules.md\n"
        f"The numbers on paper: {unit_test(layer)}\n"
        f"Try it: pytest --impl {folder} -k {layer}\n"
        f"A hint: python -m llama hint {layer} --impl {folder}",
    ]


def _beneath(functions: dict[str, ast.FunctionDef]) -> list[str]:
    """The layers that a composed layer calls, each as `layers.rope(x, positions, frequencies)`."""
    used = {
        node.attr
        for function in functions.values()
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "layers"
    }
    # `layers.keeping("attention")` is that layer too, as ours has it.
    used |= {
        str(node.args[0].value)
        for function in functions.values()
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "keeping"
        and isinstance(node.args[0], ast.Constant)
    }
    return [f"layers.{layer}({', '.join(_called_with(layer))})" for layer in LAYERS if layer in used]


def _called_with(layer: str) -> list[str]:
    """`eps=1e-05`: the parameters of that layer, without those that are ours alone."""
    module = layer_module(layer)
    function = getattr(module, "compose", None) or module.vectorized
    parameters = inspect.signature(function).parameters.values()
    return [str(p.replace(annotation=p.empty)) for p in parameters if p.name not in INTERNAL]


def _parameters(function: ast.FunctionDef) -> list[tuple[ast.arg, ast.expr | None]]:
    """The parameters that are in the contract, with their defaults."""
    arguments = function.args.args
    defaults = [None] * (len(arguments) - len(function.args.defaults)) + list(function.args.defaults)
    return [pair for pair in zip(arguments, defaults, strict=True) if pair[0].arg not in INTERNAL]


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    """`x: Float[Tensor, "... d_model"]`, `eps: float = 1e-05`: as it stands in the signature."""
    return _source(argument) + (f" = {_source(default)}" if default is not None else "")


def _returned(annotation: ast.expr | None) -> list[str]:
    """`) -> Float[Tensor, "..."]:`, a line for each part of a long tuple."""
    line = f") -> {_source(annotation)}:"
    if len(line) <= WIDTH or not isinstance(annotation, ast.Subscript) or not isinstance(annotation.slice, ast.Tuple):
        return [line]
    return [") -> tuple[", *(f"    {_source(part)}," for part in annotation.slice.elts), "]:"]


def _source(node: ast.AST | None) -> str:
    return ast.unparse(node).replace("'", '"') if node is not None else "None"


def _imports(layer: str, tree: ast.Module, function: ast.FunctionDef, composed: bool) -> list[str]:
    """torch, what the signature needs, and math where our own function needs it; grouped as usual."""
    annotations = [function.returns, *(argument.annotation for argument, _ in _parameters(function))]
    named = {node.id for a in annotations if a is not None for node in ast.walk(a) if isinstance(node, ast.Name)}
    used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    pythons: list[str] = []
    others: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Import) and node.names[0].name == "math" and "math" in used:
            pythons.append("import math")
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names if alias.name in named]
            group = others if node.module in ("jaxtyping", "torch") else pythons
            group += [f"from {node.module} import {', '.join(names)}"] if names else []
    ours = ["from llama import implementation"] if composed else []
    groups = [pythons, ["import torch", *others] if takes_tensors(layer) else [], ours]
    return "\n\n".join("\n".join(group) for group in groups if group).splitlines()
