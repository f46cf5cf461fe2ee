"""python -m llama: train a small Llama, let one write, or write one yourself."""

import sys
from collections.abc import Callable
from typing import Any

import tyro

from llama import generate, kata, train

# What the flags of each command make, and what is done with it.
COMMANDS: dict[type, Callable[[Any], object]] = {
    train.Train: train.run,
    generate.Generate: generate.run,
    kata.Kata: kata.run,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; with none, `train`. Wrong input is one sentence on standard error and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        config = tyro.extras.subcommand_cli_from_dict(
            {command.__name__.lower(): command for command in COMMANDS},
            prog="python -m llama",
            description="A Llama that really trains. Without a command: train on TinyShakespeare, about two minutes.",
            args=arguments or ["train"],
        )
        COMMANDS[type(config)](config)
    except (ValueError, IndexError, OSError) as error:
        print(f"llama: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("llama: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
