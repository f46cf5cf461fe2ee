"""python -m llama: climb from a baseline to Llama, train one, let it write, or write one yourself."""

import argparse
import contextlib
import io
import os
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any, Union

import tyro

from llama.generation import command as generation
from llama.generation.command import Generate
from llama.kata import command as kata
from llama.kata import hint, report, solution
from llama.kata.command import Kata
from llama.kata.exam import command as exam
from llama.kata.exam.command import Exam
from llama.kata.hint import Hint
from llama.kata.report import Report
from llama.kata.solution import Solution
from llama.ladder import command as ladder
from llama.ladder.climb import Ladder
from llama.machine.device import is_out_of_memory
from llama.machine.safe_files import one_line
from llama.text import command as tokenizer
from llama.text.command import Tokenizer
from llama.training import command as training
from llama.training import distributed, evaluate
from llama.training.evaluate import Evaluate
from llama.training.interruption import Stopped
from llama.training.options import PRESETS, Train

# What the flags of each command make, and what is done with it.
COMMANDS: dict[type, Callable[[Any], object]] = {
    Ladder: ladder.run,
    Train: training.run,
    Generate: generation.run,
    Evaluate: evaluate.run,
    Tokenizer: tokenizer.run,
    Kata: kata.run,
    Hint: hint.run,
    Solution: solution.run,
    Exam: exam.run,
    Report: report.run,
}
PATIENCE = 3.0
"""Seconds that a process which is not the first of its machine waits before it ends by an error."""


def _defaults(command: type, arguments: list[str]) -> Any:
    """What the flags are where they are not given: those of the preset that is named."""
    if command is not Train:
        return tyro.MISSING_NONPROP
    chosen = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chosen.add_argument("--preset", nargs="?")  # without a name tyro says what is wrong
    return PRESETS.get(chosen.parse_known_args(arguments)[0].preset, Train())


def _others_wait() -> None:
    """torchrun ends all processes when one has ended. So the others let the first of a machine speak."""
    if distributed.group().local_rank:
        time.sleep(PATIENCE)


def _open_streams() -> None:
    """A stream that was closed is one that nobody reads, and what its encoding lacks is written as its code."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.StringIO())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _sentence(error: Exception) -> str:
    """What is wrong, in one line; of a file that cannot be used, its name and the system's reason."""
    if isinstance(error, OSError) and error.filename is not None:
        return one_line(f"{error.filename} cannot be used: {error.strerror}")
    return one_line(error)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; with none, `ladder`. Wrong input is one sentence on standard error and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _open_streams()
    try:
        choices = [
            Annotated[command, tyro.conf.subcommand(command.__name__.lower(), default=_defaults(command, arguments))]
            for command in COMMANDS
        ]
        config: Any = tyro.cli(
            Union[*choices],  # type: ignore[call-overload]  # a choice that is made as the program runs
            prog="python -m llama",
            description="A Llama that really trains. Without a command: `ladder`, about two minutes.",
            args=arguments or ["ladder"],
        )
        code = COMMANDS[type(config)](config)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print("llama: the memory does not suffice; smaller sizes or fewer samples take less", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Who reads has seen enough. Python would write the rest when it ends, and complain.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # what a shell expects of a program that SIGPIPE has ended
    except (ValueError, IndexError, OSError) as error:
        _others_wait()  # where the first had nothing to say, they are still there afterwards
        print(f"llama: {_sentence(error)}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        _others_wait()
        if distributed.group().local_rank == 0:
            print(f"llama: {stopped}", file=sys.stderr)
        return stopped.code
    except KeyboardInterrupt:
        print("llama: interrupted", file=sys.stderr)
        return 130
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
