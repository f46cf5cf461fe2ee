"""The prompt: given on the command line, in a file, or on standard input."""

import sys
from pathlib import Path


def read_prompt(prompt: str | None, file: Path | None) -> str | None:
    """The prompt itself, standard input where it is `-`, or the text of a file; None where none is given.

    Raises ValueError where both are given or the text is empty or not UTF-8, OSError where the file cannot be read.
    """
    if prompt is not None and file is not None:
        raise ValueError(f"generate: prompt {prompt!r:.40} and prompt_file {file} cannot both be given")
    if prompt is None and file is None:
        return None
    source = str(file) if file else "standard input" if prompt == "-" else "the prompt"
    try:
        if prompt == "-":
            if sys.stdin is None:
                raise ValueError("generate: there is no standard input")
            prompt = sys.stdin.buffer.read().decode("utf-8")
        elif file is not None:
            prompt = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"generate: {source} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"
        ) from None
    if not prompt:
        raise ValueError(f"generate: {source} is empty")
    return prompt


def read_prompts(file: Path) -> dict[int, str]:
    """The prompts in a file, one in each line that is not blank, by the numbers of their lines from 1 on.

    Raises ValueError where there is none or the text is not UTF-8, OSError where the file cannot be read.
    """
    text = read_prompt(None, file) or ""
    prompts = {number: line for number, line in enumerate(text.splitlines(), 1) if line.strip()}
    if not prompts:
        raise ValueError(f"generate: {file} has no prompt")
    return prompts
