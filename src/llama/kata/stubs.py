"""The file that a learner begins with: a layer's contract and signature, made from our own layer."""

import ast
import inspect

from llama.implementation import INTERNAL
from llama.kata.board import unit_test
from llama.layers import layer_module


def stub(layer: str, folder: str = "my_llama") -> str:
    """The text of a file in which `layer` has its contract and its signature, and raises NotImplementedError."""
    module = layer_module(layer)
    tree = ast.parse(inspect.getsource(module))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    composed = "compose" in functions
    function = functions["compose"] if composed else functions.get("vectorized", functions["naive"])
    parameters = [p for p in _parameters(function) if p.partition(":")[0] not in INTERNAL]
    paragraphs = [p for p in (inspect.getdoc(module) or "").split("\n\n") if "`compose`" not in p]
    if composed:
        paragraphs.append("The layers beneath are there already, and right: call them as layers.linear(x, weight).")
    paragraphs.append(f"The numbers on paper: {unit_test(layer)}\nTry it: pytest --impl {folder} -k {layer}")
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
        f'    raise NotImplementedError("{layer} is not written yet: read {unit_test(layer)}")',
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
