"""What the text of a file says that it defines: nothing of it is run."""

import ast
import re
from pathlib import Path

from llama.layers import LAYERS

_DEFINED = re.compile(rf"^(?:def\s+)?({'|'.join(LAYERS)})\b\s*[(:=]", re.MULTILINE)


def layers_in(file: Path) -> list[str]:
    """The layers that the file defines, or imports from another than torch; and that of its own name."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    try:
        names = {name for node in ast.parse(text).body for name in defined_by(node) | _imported_by(node)}
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # that which cannot be imported either
        names = set(_DEFINED.findall(text))
    return [layer for layer in LAYERS if layer == file.stem or layer in names]


def defined_by(node: ast.stmt) -> set[str]:
    """What a statement of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def _imported_by(node: ast.stmt) -> set[str]:
    """Of torch's own functions, that of the same name is a tool to write another layer with."""
    if not isinstance(node, ast.ImportFrom) or (node.module or "").partition(".")[0] == "torch":
        return set()
    return {alias.asname or alias.name for alias in node.names}
