"""A model and its tokenizer on disk.

save("out/train/checkpoint", model, tokenizer)
model, tokenizer = load("out/train/checkpoint")        # or a Hugging Face folder, or a file of llama2.c
"""

from pathlib import Path

from llama.implementation import Implementation
from llama.machine.safe_files import write_atomically
from llama.model import weights
from llama.model.llama import Llama
from llama.model.llama2c import load_llama2c
from llama.text.downloads import known_file
from llama.text.tokenizer import CharTokenizer, JsonTokenizer, StoredTokenizer, Tokenizer
from llama.text.tokenizer import load as load_tokenizer

TOKENIZERS = (CharTokenizer.FILE, JsonTokenizer.FILE)
STORIES = "stories260K"
"""The name of a small model of llama2.c that is fetched where it is not here."""


def save(folder: str | Path, model: Llama, tokenizer: StoredTokenizer) -> None:
    """Write the model and its tokenizer into the folder, which is made where it is missing; all of it or nothing.

    Raises OSError, in one sentence, where that cannot be done, and ValueError for weights that could not be read
    again; an earlier checkpoint is then still whole.
    """
    files = weights.writers(model.config, model.state_dict())
    write_atomically(folder, files | {tokenizer.FILE: tokenizer.save})
    for other in TOKENIZERS:
        if other != tokenizer.FILE:  # of an earlier model, which was there before
            (Path(folder) / other).unlink(missing_ok=True)


def load(
    path: str | Path, implementation: Implementation | str = "fused", tokenizer: str | Path | None = None
) -> tuple[Llama, Tokenizer]:
    """The model of a Hugging Face folder, of a file of llama2.c, or of the name stories260K; and its tokenizer.

    The tokenizer is the file that is given, or the one beside the weights: characters.json or tokenizer.json in a
    folder, tok512.bin (with the number of tokens in its name) or tokenizer.bin beside a file of llama2.c.

    Raises ValueError in a sentence where a file is missing, is damaged or does not fit the others, and OSError where
    stories260K cannot be fetched.
    """
    path = Path(path)
    if str(path) == STORIES and not path.exists():
        path = known_file("stories260K.bin")
        tokenizer = tokenizer or known_file("tok512.bin")
    if path.is_dir():
        model = Llama.from_pretrained(path, implementation)
        beside = [path / name for name in TOKENIZERS]
    elif path.is_file():
        model = load_llama2c(path, implementation)
        beside = [path.with_name(f"tok{model.config.vocab_size}.bin"), path.with_name("tokenizer.bin")]
    else:
        makes = "python -m llama train makes a checkpoint"
        raise ValueError(f"checkpoint: {path} is neither a folder nor a file nor {STORIES}; {makes}")
    if tokenizer is None:
        if not (there := [file for file in beside if file.is_file()]):
            wanted = " or ".join(file.name for file in beside)
            raise ValueError(f"checkpoint: {beside[0].parent} has no {wanted}; name one with --tokenizer")
        tokenizer = there[0]
    found = load_tokenizer(tokenizer)
    vocab = model.config.vocab_size
    # Hugging Face's models may have more rows than tokens, to make a round number.
    if not (found.vocab <= vocab if isinstance(found, JsonTokenizer) else found.vocab == vocab):
        raise ValueError(f"checkpoint: {tokenizer} has {found.vocab} tokens but the model a vocab_size of {vocab}")
    if isinstance(found, JsonTokenizer):
        found.vocab = vocab
    return model, found
