"""Files that import what lies beside them, as a script does: `from kernels_common import block`.

    package = package_of(Path("my_llama"))           # a name in sys.modules
    importlib.import_module(f"{package}.silu")

A folder on sys.path would do for one of them. With two, the second `import kernels_common` would find the module of
the first, and a file called llama.py would hide this project. So each folder is a package with a name of its own, and
an import of a neighbour is compiled as an import from that package. This holds while the file is imported and later,
when an import within a function runs.

The standard library and this project come first; a neighbour hides any other installed module.
"""

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

_FOLDERS: dict[str, Path] = {}
"""The folder of each package made here."""
FIRST = sys.stdlib_module_names | {"llama"}
"""What an import always means, whatever lies beside the file."""


def package_of(path: Path) -> str:
    """A new package of the files in that folder, or beside that file. Its name is made from the path.

    What was imported from there before is imported anew.
    """
    path = path.resolve()
    name = f"implementation_{abs(hash(path)):x}_{path.stem.replace('.', '_')}"
    _FOLDERS[name] = path if path.is_dir() else path.parent
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]
    package = ModuleType(name)
    package.__path__ = [str(_FOLDERS[name])]
    sys.modules[name] = package
    return name


def module_of(package: str, path: Path) -> ModuleType:
    """The module of that file, whatever it is called."""
    return _executed(f"{package}.{path.stem.replace('.', '_')}", path)


def with_init(package: str) -> ModuleType:
    """The package with what `__init__.py` defines in it, where the folder has one."""
    init = _FOLDERS[package] / "__init__.py"
    return _executed(package, init, [str(_FOLDERS[package])]) if init.is_file() else sys.modules[package]


def _executed(name: str, path: Path, search: list[str] | None = None) -> ModuleType:
    before = sys.modules.get(name)
    spec = _spec(name, path, search)
    assert spec is not None  # a .py file has a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        raise
    return module


def _spec(name: str, path: Path, search: list[str] | None = None) -> ModuleSpec | None:
    loader = _Loader(name, str(path))
    return importlib.util.spec_from_file_location(name, path, loader=loader, submodule_search_locations=search)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of these packages, so that their imports are compiled as said above."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package.partition(".")[0] not in _FOLDERS:
            return None
        for folder in path or ():
            if (file := Path(folder) / f"{name}.py").is_file():
                return _spec(fullname, file)
            if (init := Path(folder) / name / "__init__.py").is_file():
                return _spec(fullname, init, [str(init.parent)])
        return None  # a compiled module, or a folder without __init__.py: Python finds these by itself


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles a file with its imports of neighbours; never from what Python has cached, where these are plain."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        package = fullname.partition(".")[0]
        tree = _Neighbours(package, Path(path)).visit(ast.parse(self.get_data(path), path))
        code: CodeType = compile(tree, path, "exec", dont_inherit=True)
        return code


class _Neighbours(ast.NodeTransformer):
    """`import a`, `import a as b`, `import a.b` and `from a import b`, where `a` lies in the folder of the package."""

    def __init__(self, package: str, file: Path):
        self.package, self.file = package, file

    def _is_beside(self, name: str) -> bool:
        first, folder = name.partition(".")[0], _FOLDERS[self.package]
        places = (folder / f"{first}.py", folder / first)
        return first not in FIRST and self.file not in places and any(place.exists() for place in places)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        if node.level == 0 and node.module and self._is_beside(node.module):
            node.module = f"{self.package}.{node.module}"
        return node

    def visit_Import(self, node: ast.Import) -> ast.Import:
        node.names = [new for alias in node.names for new in self._from_package(alias)]
        return node

    def _from_package(self, alias: ast.alias) -> list[ast.alias]:
        if not self._is_beside(alias.name):
            return [alias]
        first = alias.name.partition(".")[0]
        there = ast.copy_location(ast.alias(f"{self.package}.{alias.name}", alias.asname or first), alias)
        if alias.asname or first == alias.name:
            return [there]
        # `import a.b` imports a.b and binds a.
        return [there, ast.copy_location(ast.alias(f"{self.package}.{first}", first), alias)]


sys.meta_path.insert(0, _Finder())
