"""python -m llama: train a small Llama, or let one write."""

import sys
from collections.abc import Callable
from typing import Any

import tyro

from llama import generate, train

COMMANDS: dict[str, Callable[..., Any]] = {"train": train.Train, "generate": generate.Generate}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; with none, `train`. Wrong input is one sentence on standard error and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        config = tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="python -m llama",
            description="A Llama that really trains. Without a command: train on TinyShakespeare, about two minutes.",
            args=arguments or ["train"],
        )
        train.run(config) if isinstance(config, train.Train) else generate.run(config)
    except (ValueError, IndexError, OSError) as error:
        print(f"llama: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("llama: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
