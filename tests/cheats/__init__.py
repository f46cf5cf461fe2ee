"""Tricks with which a wrong layer, or one that is not one's own, could look right; the suite refuses every one.

    borrowed/    the project computes for it: our own layer, or the judge's expected value
    kept/        the answer to another call, memory that is written later, less precision where nobody looks
    pretended/   a result that only says that it is right
    ended/       the test or the program is over before anybody judges
    replaced/    what the judge relies on is another, or computes differently

Each module is one trick and defines one layer. The first paragraph of its docstring says what it does, and `Fools:`
whom. `pytest --cheats` shows by which sentence each is refused. They run in the process that judges them, which undoes
what they do (tests/judge/guards). What a process cannot keep from code that runs in it (memory that
is written through ctypes, an end in C, a call that never returns) is no part of this: run code that you do not
trust in a machine of its own.
"""

from pathlib import Path

FOLDER = Path(__file__).parent


def everything() -> list[str]:
    """The modules of all cheats."""
    files = sorted(path.relative_to(FOLDER) for path in FOLDER.glob("*/*.py"))
    return [f"tests.cheats.{file.parent}.{file.stem}" for file in files if file.stem != "__init__"]
