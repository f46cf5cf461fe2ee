"""How the package's annotations are enforced under pytest."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

# PEP 484's numeric tower: where a float is asked for, the integer 1 will do.
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def enforce(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check what jaxtyping asks to have checked, once per call.

    jaxtyping asks twice: for the parameters before the call (with any result), and for parameters and result
    after it. The first says nothing that the second does not say too, except where there is no result.
    """
    will_be_asked_again = function.__annotations__.get("return") is Any and function.__name__ != "__init__"
    return function if will_be_asked_again else _checked(function)
