"""What comes of a call, in whichever process: a plain result, an error, or the end of something."""

import traceback
from typing import Any

NUMBERS = (int, float, bool)
BY_PYTEST = {"Skipped": "pytest.skip", "XFailed": "pytest.xfail", "Failed": "pytest.fail", "Exit": "pytest.exit"}
"""What raises these, which are no errors."""
FRAMEWORKS = ("_pytest", "unittest", "hypothesis")
"""Whose exceptions mean something to the run: a test that is skipped, an example that does not count."""
LONGEST = 2000
"""Characters of what a layer says, as far as they are passed on."""


def plain(result: Any) -> Any:
    """A named tuple, as torch's functions return, as a tuple."""
    kind = type(result)
    named = issubclass(kind, tuple) and hasattr(kind, "_fields") and kind.__iter__ is tuple.__iter__
    return tuple(result) if named else result


def ended(error: BaseException) -> str:
    """What this exception is the end of, and how; nothing for an error."""
    kind = type(error)
    if isinstance(error, SystemExit):
        return f"the program with sys.exit({error.code!r})"
    if isinstance(error, Exception) and kind.__module__.partition(".")[0] not in FRAMEWORKS:
        return ""
    return f"its test with {BY_PYTEST.get(kind.__name__, kind.__name__)}"


def failure(error: BaseException) -> dict[str, Any]:
    """An error as it can be told in JSON."""
    if end := ended(error):
        return {"failed": True, "ended": end[:LONGEST]}
    try:
        text = str(error)[:LONGEST]
    except Exception:  # an error of the layer's own, which cannot be printed
        text = ""
    kind = type(error)
    frames = [[frame.filename, frame.lineno] for frame in traceback.extract_tb(error.__traceback__)]
    bases = [base.__name__ for base in kind.__mro__ if base.__module__ == "builtins"]
    return {"failed": True, "raised": kind.__name__[:100], "bases": bases, "text": text, "frames": frames[-50:]}
