"""`python -m llama` on what it cannot use: one sentence with the value in it, exit code 2, and nothing is written."""

import os
import shlex
import shutil
import struct
import sys
from pathlib import Path

import pytest

from llama.__main__ import main
from llama.model import checkpoint
from llama.model.config import LlamaConfig
from llama.model.llama import Llama
from llama.text.tokenizer import CharTokenizer

CHARACTERS = "\n abcdeé"
FILES = {
    "text.txt": b"to be or not to be, that is the question\n" * 40,
    "locked.txt": b"to be or not to be",
    "empty.txt": b"",
    "one.txt": b"a" * 2000,
    "short.txt": b"ab",
    "blank.txt": b"\n \n",
    "lines.txt": b"a\naaaaaaaaaaaaa\n",
    "letters.txt": b"a\nb\n",
    "brief.txt": b"to be or not to be, " * 6,
    "latin.txt": b"caf\xe9",
    "header.bin": bytes(28),
    "notes.json": b"[1]",
    "tokens.bin": struct.pack("<i", 3) + 3 * struct.pack("<fic", 0.0, 1, b"a"),
    "other/characters.json": b'{"characters": "ab"}',
    "mine.py": b"def decoder_layer(x, *_, **__):\n    return x\n",
}
HUGE = 10**12
TOO_LARGE = 2**63


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "checkpoint"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 12}
    model = Llama(LlamaConfig(vocab_size=len(CHARACTERS), **sizes))
    checkpoint.save(path, model, CharTokenizer(CHARACTERS))
    return path


@pytest.fixture
def place(tmp_path, monkeypatch, trained):
    """The current folder, with files of all kinds and a checkpoint; what is called locked may not be used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # of mine.py, which Python would do beside it
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "locked").mkdir()
    shutil.copytree(trained, "checkpoint")
    shutil.copytree(trained, "bare", ignore=shutil.ignore_patterns("characters.json"))
    # The tests may run as root, whom no file is locked to.
    read_bytes, access = Path.read_bytes, os.access

    def read(path):
        if path.name == "locked.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "locked" and access(path, mode))
    return tmp_path


def _contents(folder):
    return {
        path: path.read_bytes() if path.is_file() and path.name != "locked.txt" else None for path in folder.rglob("*")
    }


def _assert_refused(place, capsys, arguments, sentence):
    before = _contents(place)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"llama: {sentence}")
    assert len(err.splitlines()) == 1
    assert out == ""
    assert _contents(place) == before


def _table(*rows):
    return pytest.mark.parametrize(("arguments", "sentence"), rows, ids=[arguments for arguments, _ in rows])


CORPORA = (
    ("--corpus empty.txt", "corpus: empty.txt is empty"),
    ("--corpus one.txt", "corpus: one.txt has no other character than 'a', so there is nothing to predict"),
    ("--corpus latin.txt", "corpus: latin.txt is not UTF-8 text: byte 3 is 0xe9"),
    ("--corpus locked.txt", "locked.txt cannot be used: Permission denied"),
    ("--corpus other", "corpus: other is neither tinyshakespeare nor grammar nor a file"),
    ("--corpus none.txt", "corpus: none.txt is neither tinyshakespeare nor grammar nor a file"),
    ("--corpus short.txt --window 8", "windows: a window of 8 needs 9 tokens, the split has 2"),
)
SIZES = (
    ("--window 1312", "windows: a window of 1312 needs 1313 tokens, the split has 1312"),
    ("--window 0", "windows: window must be at least 1, got 0"),
    ("--window -1", "windows: window must be at least 1, got -1"),
    (f"--window {HUGE}", f"windows: a window of {HUGE} needs {HUGE + 1} tokens, the split has 1312"),
    ("--hidden-size 0", "config: hidden_size must be at least 1, got 0"),
    ("--hidden-size -8", "config: hidden_size must be at least 1, got -8"),
    ("--hidden-size 30", "config: num_attention_heads must divide hidden_size, got 4 and 30"),
    ("--hidden-size 12", "config: head_dim must be even, got 3"),
    (f"--hidden-size {HUGE}", f"train: hidden_size {HUGE}, num_hidden_layers 4, batch_size "),
    ("--num-hidden-layers 0", "config: num_hidden_layers must be at least 1, got 0"),
    ("--num-hidden-layers -1", "config: num_hidden_layers must be at least 1, got -1"),
    (f"--num-hidden-layers {HUGE}", f"train: hidden_size 128, num_hidden_layers {HUGE}, batch_size "),
    ("--num-attention-heads 0", "config: num_attention_heads must be at least 1, got 0"),
    ("--num-attention-heads -4", "config: num_attention_heads must be at least 1, got -4"),
    (f"--num-attention-heads {HUGE}", f"config: num_attention_heads must divide hidden_size, got {HUGE} and 128"),
    ("--num-key-value-heads 0", "config: num_key_value_heads must be at least 1, got 0"),
    ("--num-key-value-heads -2", "config: num_key_value_heads must be at least 1, got -2"),
    ("--num-key-value-heads 3", "config: num_key_value_heads must divide num_attention_heads, got 3 and 4"),
    ("--batch-size 0", "train: batch_size must be at least 1, got 0"),
    ("--batch-size -1", "train: batch_size must be at least 1, got -1"),
    (f"--batch-size {HUGE}", f"train: hidden_size 128, num_hidden_layers 4, batch_size {HUGE} would take "),
    ("--steps 0", "train: steps must be at least 1, got 0"),
    ("--steps -1", "train: steps must be at least 1, got -1"),
)
LAYERS_AND_DEVICES = (
    (
        "--impl nothing",
        "an implementation is naive, vectorized, fused, a dotted module, a .py file or a folder of them (no",
    ),
    ("--impl other", "other defines no layer; it must define at least one of softmax, "),
    ("--device nowhere", "device: nowhere cannot be used here ("),
    ("--device meta", "device: meta cannot be used here ("),
    ("--device cuda:99", "device: cuda:99 cannot be used here ("),
)
GRADIENTS = (
    ("--impl naive", "train: autograd cannot see into the naive layers; train with vectorized or fused, or --by-hand"),
)
BY_HAND = (
    ("--by-hand --dropout 0.1", "train: --by-hand knows no dropout, got 0.1"),
    ("--by-hand --dtype bfloat16", "train: --by-hand knows no bfloat16; leave --dtype out, or give float32"),
    ("--by-hand --compile", "train: --by-hand knows no --compile, which compiles what autograd makes of the layers"),
)
FOLDERS = (
    ("--out text.txt", "text.txt is a file, and must be a folder"),
    ("--out text.txt/out", "text.txt is a file, and must be a folder"),
    ("--out locked/out", "locked may not be written"),
)


@_table(
    *CORPORA,
    *SIZES,
    ("--evaluate-every 0", "train: evaluate_every must be at least 1, got 0"),
    ("--evaluate-every -1", "train: evaluate_every must be at least 1, got -1"),
    ("--fractions 0.5 0.5 0.5", "split: fractions must be three that add up to 1, got (0.5, 0.5, 0.5)"),
    ("--fractions -1 1 1", "split: fractions must be three that add up to 1, got (-1.0, 1.0, 1.0)"),
    ("--fractions nan 0 0", "split: fractions must be three that add up to 1, got (nan, 0.0, 0.0)"),
    ("--fractions 1 0 0", "train: the validation split has 0 characters, it needs at least 2"),
    ("--peak-lr 0", "cosine_schedule: min_lr must lie in 0..peak_lr=0.0, got 3e-05"),
    ("--peak-lr -1", "cosine_schedule: min_lr must lie in 0..peak_lr=-1.0, got 3e-05"),
    ("--peak-lr nan", "cosine_schedule: min_lr must lie in 0..peak_lr=nan, got 3e-05"),
    ("--peak-lr inf", "train: peak_lr must be finite, got inf"),
    ("--min-lr -1", "cosine_schedule: min_lr must lie in 0..peak_lr=0.006, got -1.0"),
    ("--min-lr 1", "cosine_schedule: min_lr must lie in 0..peak_lr=0.006, got 1.0"),
    ("--min-lr nan", "cosine_schedule: min_lr must lie in 0..peak_lr=0.006, got nan"),
    ("--muon-lr -1", "train: muon_lr must not be negative, got -1.0"),
    ("--muon-lr nan", "train: muon_lr must not be negative, got nan"),
    ("--muon-lr inf", "train: muon_lr must be finite, got inf"),
    ("--warmup-steps -1", "cosine_schedule: warmup_steps must lie in 0..total_steps=1, got -1"),
    ("--weight-decay -1", "adamw: lr, eps and weight_decay must not be negative, got "),
    ("--weight-decay nan", "adamw: lr, eps and weight_decay must not be negative, got 0.006, 1e-08 and nan"),
    ("--weight-decay inf", "train: weight_decay must be finite, got inf"),
    ("--beta1 1", "adamw: betas must be two in [0, 1), got (1.0, 0.99)"),
    ("--beta1 -1", "adamw: betas must be two in [0, 1), got (-1.0, 0.99)"),
    ("--beta2 nan", "adamw: betas must be two in [0, 1), got (0.9, nan)"),
    ("--beta2 1", "adamw: betas must be two in [0, 1), got (0.9, 1.0)"),
    ("--save-every 0", "train: save_every must be at least 1, got 0"),
    ("--accumulate 0", "train: accumulate must divide batch_size, got 0 and 16"),
    ("--accumulate 3", "train: accumulate must divide batch_size, got 3 and 16"),
    ("--max-norm 0", "clip_grad_norm: max_norm must be positive, got 0.0"),
    ("--max-norm -1", "clip_grad_norm: max_norm must be positive, got -1.0"),
    ("--max-norm nan", "clip_grad_norm: max_norm must be positive, got nan"),
    ("--dropout 1", "train: dropout must lie in 0..255/256, got 1.0"),
    ("--dropout -1", "train: dropout must lie in 0..255/256, got -1.0"),
    ("--dropout nan", "train: dropout must lie in 0..255/256, got nan"),
    ("--impl mine.py --dropout 0.1", "train: decoder_layer of mine knows no dropout; use --dropout 0"),
    ("--tokenizer bpe:256", "tokenizer: vocab must be at least 257, the bytes and one merge, got 256"),
    ("--tokenizer bpe:many", "train: tokenizer must be characters, bpe:N or a file, got 'bpe:many'"),
    (f"--tokenizer bpe:{HUGE}", f"train: tokenizer must be characters, bpe:N or a file, got 'bpe:{HUGE}'"),
    ("--tokenizer none.json", "train: tokenizer must be characters, bpe:N or a file, got 'none.json'"),
    ("--tokenizer notes.json", "tokenizer: notes.json cannot be read ("),
    ("--tokenizer other/characters.json", "tokenizer: the vocabulary lacks 't', at position 0"),
    ("--tokenizer tokens.bin", "train: tokenizer must be a characters.json or tokenizer.json, got 'tokens.bin'"),
    ("--tokenizer bpe:300 --fractions 0.99 0.0 0.01", "train: the validation split has 0 tokens, it needs at least 2"),
    ("--seed -1", "train: seed must lie in 0..2^63 - 1, got -1"),
    (f"--seed {TOO_LARGE}", f"train: seed must lie in 0..2^63 - 1, got {TOO_LARGE}"),
    *LAYERS_AND_DEVICES,
    *GRADIENTS,
    *BY_HAND,
    *FOLDERS,
    ("--profile --hidden-size 0", "config: hidden_size must be at least 1, got 0"),
)
def test_train_refuses(place, capsys, arguments, sentence):
    _assert_refused(place, capsys, ["train", "--corpus", "text.txt", "--steps", "1", *shlex.split(arguments)], sentence)


def test_train_refuses_a_file_where_the_checkpoint_is_to_stand(place, capsys):
    (place / "out").mkdir()
    (place / "out" / "checkpoint").write_text("")
    sentence = f"{Path('out/checkpoint')} is a file, and must be a folder"
    _assert_refused(place, capsys, ["train", "--corpus", "text.txt", "--steps", "1", "--out", "out"], sentence)


@_table(
    *CORPORA,
    *SIZES,
    ("--window 164", "ladder: a window of 164 needs 165 characters, the validation split has 164"),
    ("--rungs tokens --window 60", "ladder: a window of 60 needs 61 tokens, the validation split has 48"),
    ("--rungs tokens --hidden-size 8", "ladder: 4 layers do not fit into "),
    ("--rungs", "ladder: at least one rung and one seed are needed"),
    ("--rungs attic", "ladder: a rung is one of softmax-twice, baseline, rms_norm, "),
    ("--rungs oven best oven", "ladder: a rung counts once, got oven twice"),
    ("--seeds", "ladder: at least one rung and one seed are needed"),
    ("--seeds 0 -1", "train: seed must lie in 0..2^63 - 1, got -1"),
    ("--seeds 3 4 3", "ladder: a seed counts once, got 3 twice"),
    (f"--seeds {TOO_LARGE}", f"train: seed must lie in 0..2^63 - 1, got {TOO_LARGE}"),
    ("--originals --window 2 --corpus short.txt", "windows: a window of 2 needs 3 tokens, the split has 2"),
    (
        "--originals --window 2 --corpus brief.txt",
        "ladder: a window of 16 needs 17 characters, the validation split has 12",
    ),
    (
        "--weigh 1 --window 2 --corpus brief.txt",
        "ladder: a window of 16 needs 17 characters, the validation split has 12",
    ),
    ("--weigh 1 --hidden-size 16 --num-hidden-layers 9999", "ladder: 9999 layers do not fit into 2,"),
    ("--weigh -1", "ladder: weigh must not be negative, got -1"),
    *LAYERS_AND_DEVICES,
    *GRADIENTS,
    *FOLDERS,
)
def test_ladder_refuses(place, capsys, arguments, sentence):
    _assert_refused(
        place, capsys, ["ladder", "--corpus", "text.txt", "--steps", "1", *shlex.split(arguments)], sentence
    )


@_table(
    ("--prompt €", "tokenizer: the vocabulary lacks '€', at position 0"),
    ("--prompt ''", "generate: the prompt is empty"),
    ("--prompt aaaaaaaaaaaaa", "generate: the prompt must have 1 to 12 tokens, got 13"),
    ("--prompt a --prompt-file b", "generate: prompt 'a' and prompt_file b cannot both be given"),
    ("--prompt-file empty.txt", "generate: empty.txt is empty"),
    ("--prompt-file latin.txt", "generate: latin.txt is not UTF-8 text: byte 3 is 0xe9"),
    ("--prompt-file none.txt", "none.txt cannot be used: No such file or directory"),
    ("--prompt-file locked.txt", "locked.txt cannot be used: Permission denied"),
    ("--max-new-tokens -1", "generate: max_new_tokens must not be negative, got -1"),
    ("--prompts-file empty.txt", "generate: empty.txt is empty"),
    ("--prompts-file blank.txt", "generate: blank.txt has no prompt"),
    ("--prompts-file none.txt", "none.txt cannot be used: No such file or directory"),
    ("--prompts-file text.txt", "tokenizer: the vocabulary lacks 't', at position 0"),
    ("--prompts-file lines.txt", "generate: the prompt must have 1 to 12 tokens, got 13, in line 2 of lines.txt"),
    ("--prompts-file text.txt --prompt a", "generate: prompts_file and a prompt cannot both be given"),
    ("--prompts-file text.txt --samples 2", "generate: prompts_file and samples cannot both be given"),
    ("--prompts-file text.txt --draft b", "generate: draft is for one text at a time, and cannot go with prompts_file"),
    ("--samples 2 --compile", "generate: compile is for one text at a time, and cannot go with samples"),
    ("--compile --impl vectorized", "generate: compile is for our fused layers on a CPU, in one dtype but float16"),
    ("--prompts-file letters.txt --at-once 0", "generate: at_once must be at least 1, got 0"),
    ("--draft none", "checkpoint: none is neither a folder nor a file nor stories260K"),
    ("--draft checkpoint --draft-tokens 0", "generate: draft_tokens must be at least 1, got 0"),
    ("--quantize 8 --impl mine.py", "quantize: decoder_layer of mine composes layers itself and knows no codes"),
    ("--samples 0", "generate: samples must be at least 1, got 0"),
    ("--samples -1", "generate: samples must be at least 1, got -1"),
    (f"--samples {HUGE}", f"generate: {HUGE} samples of 12 tokens would take "),
    (f"--samples {10**30}", f"generate: {10**30} samples of 12 tokens would take "),
    ("--seed -1", "generate: seed must lie in 0..2^63 - 1, got -1"),
    (f"--seed {TOO_LARGE}", f"generate: seed must lie in 0..2^63 - 1, got {TOO_LARGE}"),
    ("--temperature -1", "filter_logits: temperature must not be negative, and finite, got -1.0"),
    ("--temperature nan", "filter_logits: temperature must not be negative, and finite, got nan"),
    ("--temperature inf", "filter_logits: temperature must not be negative, and finite, got inf"),
    ("--temperature 1e-45", "generate: temperature must be 0 or at least 1e-06, got 1e-45"),
    ("--top-k 0", "filter_logits: top_k must be at least 1, got 0"),
    ("--top-k -1", "filter_logits: top_k must be at least 1, got -1"),
    ("--top-p 0", "filter_logits: top_p must lie in (0, 1], got 0.0"),
    ("--top-p 2", "filter_logits: top_p must lie in (0, 1], got 2.0"),
    ("--top-p nan", "filter_logits: top_p must lie in (0, 1], got nan"),
    ("--min-p -1", "filter_logits: min_p must lie in [0, 1], got -1.0"),
    ("--min-p 2", "filter_logits: min_p must lie in [0, 1], got 2.0"),
    ("--min-p nan", "filter_logits: min_p must lie in [0, 1], got nan"),
    ("--tokenizer none.json", "tokenizer: none.json is not a file"),
    ("--tokenizer notes.json", "tokenizer: notes.json cannot be read ("),
    (
        "--tokenizer other/characters.json",
        f"checkpoint: {Path('other/characters.json')} has 2 tokens but the model a vocab_size of {len(CHARACTERS)}",
    ),
    *LAYERS_AND_DEVICES,
)
def test_generate_refuses(place, capsys, arguments, sentence):
    _assert_refused(place, capsys, ["generate", "checkpoint", *shlex.split(arguments)], sentence)


@_table(
    (
        "none",
        "checkpoint: none is neither a folder nor a file nor stories260K; python -m llama train makes a checkpoint",
    ),
    ("other", "checkpoint: other has no config.json"),
    ("bare", "checkpoint: bare has no characters.json or tokenizer.json; name one with --tokenizer"),
    ("empty.txt", "llama2c: empty.txt has 0 bytes, fewer than the 28 of a header"),
    (
        "header.bin",
        "llama2c: header.bin is no checkpoint of llama2.c (config: vocab_size must be at least 1, got 0)",
    ),
    ("text.txt", "llama2c: text.txt is no checkpoint of llama2.c (config: num_attention_heads must divide hidden_size"),
)
def test_generate_refuses_a_checkpoint(place, capsys, arguments, sentence):
    _assert_refused(place, capsys, ["generate", arguments], sentence)


@_table(
    ("--corpus none.txt", "corpus: none.txt is neither tinyshakespeare nor grammar nor a file"),
    ("--corpus letters.txt --part all --window 13", "evaluate: window must lie in 1..12, the context, got 13"),
    ("--corpus letters.txt --part all --window 0", "evaluate: window must lie in 1..12, the context, got 0"),
    ("--corpus letters.txt --part test", "evaluate: at least 2 tokens are needed, test of letters.txt has 0"),
    ("--corpus text.txt", "tokenizer: the vocabulary lacks 't', at position 0"),
    ("--corpus letters.txt --part all --tokens 1", "evaluate: tokens must be at least 2, got 1"),
    ("--corpus letters.txt --part all --tokens -1", "evaluate: tokens must be at least 2, got -1"),
    *LAYERS_AND_DEVICES,
)
def test_evaluate_refuses(place, capsys, arguments, sentence):
    _assert_refused(place, capsys, ["evaluate", "checkpoint", *shlex.split(arguments)], sentence)


@_table(
    *CORPORA[:-1],
    ("--vocab 256", "tokenizer: vocab must be at least 257, the bytes and one merge, got 256"),
    ("--vocab -1", "tokenizer: vocab must be at least 257, the bytes and one merge, got -1"),
    ("--impl nothing", "an implementation is naive, vectorized, fused, a dotted module, a .py file or a folder"),
    ("--out words.bin", "tokenizer: out must end in .json and not be characters.json, got words.bin"),
    (
        "--out other/characters.json",
        f"tokenizer: out must end in .json and not be characters.json, got {Path('other/characters.json')}",
    ),
    ("--out text.txt/tokenizer.json", "text.txt is a file, and must be a folder"),
    ("--out locked/tokenizer.json", "locked may not be written"),
)
def test_tokenizer_train_refuses(place, capsys, arguments, sentence):
    _assert_refused(place, capsys, ["tokenizer", "train", "--corpus", "text.txt", *shlex.split(arguments)], sentence)


def test_tokenizer_train_refuses_a_folder_where_the_file_is_to_stand(place, capsys):
    (place / "words.json").mkdir()
    arguments = ["tokenizer", "train", "--corpus", "text.txt", "--out", "words.json"]
    _assert_refused(place, capsys, arguments, "tokenizer: words.json is a folder, and must be a file")


@_table(
    ("", "kata: say where the layers are to stand, as in python -m llama kata my_llama"),
    ("new ropes", "kata: there is no layer ropes; did you mean rope?"),
    ("new rope Rope", "kata: there is no layer Rope; did you mean rope?"),
    ("new dropout7", "kata: there is no layer dropout7; the layers are softmax, cross_entropy, "),
    (
        "new --chapter gradient",
        "kata: there is no chapter gradient; the chapters are model, gradients, training, writing, decoding",
    ),
    ("text.txt", "kata: text.txt is a file, and must be a folder"),
    ("new.py", "kata: new.py is a file, and must be a folder"),
    ("text.txt/new", "text.txt is a file, and must be a folder"),
    ("locked/new", "locked may not be written"),
    (".", "kata: '.' is where Python looks first, and llama.py there would hide the project; "),
    ("other/..", "kata: 'other/..' is where Python looks first"),
    ("new --status", "kata: there is no new yet; python -m llama kata new writes it"),
    ("other --status", "other defines no layer; it must define at least one of softmax, "),
)
def test_kata_refuses(place, capsys, arguments, sentence):
    _assert_refused(place, capsys, ["kata", *shlex.split(arguments)], sentence)


@_table(
    ("hint sofmax", "hint: there is no layer sofmax; did you mean softmax?"),
    (
        "hint rope --impl nothing",
        "an implementation is naive, vectorized, fused, a dotted module, a .py file or a folder",
    ),
    ("solution RMSNorm", "solution: there is no layer RMSNorm; did you mean rms_norm?"),
    ("solution rope", "solution: standard input is no terminal; --yes shows the solution of rope unasked"),
    (
        "solution rope --impl nothing --yes",
        "an implementation is naive, vectorized, fused, a dotted module, a .py file ",
    ),
)
def test_hint_and_solution_refuse(place, capsys, arguments, sentence):
    _assert_refused(place, capsys, shlex.split(arguments), sentence)


NUMBERS = {
    "train": "hidden-size num-hidden-layers num-attention-heads num-key-value-heads window batch-size steps "
    "warmup-steps evaluate-every seed",
    "ladder": "hidden-size num-hidden-layers num-attention-heads num-key-value-heads window batch-size steps seeds",
    "generate": "max-new-tokens samples top-k seed at-once draft-tokens",
    "evaluate": "window tokens",
    "tokenizer train": "vocab",
}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("trian", "trian"),
        ("--stepz 3", "--stepz"),
        ("train --stepz 3", "--stepz"),
        ("train --preset huge", "'huge'"),
        ("train --dtype float8", "'float8'"),
        ("train --peak-lr fast", "'fast'"),
        ("train --fractions 0.5 0.5", "--fractions"),
        ("ladder --rung llama", "--rung"),
        ("generate --top-q 1", "--top-q"),
        ("generate --temperature hot", "'hot'"),
        ("tokenizer", "{train}"),
        ("tokenizer learn", "'learn'"),
        ("tokenizer train --pattern gpt4", "'gpt4'"),
        ("kata new --stat", "--stat"),
        ("solution", "LAYER"),
        ("hint rope --al", "--al"),
        *((f"{command} --{flag} nan", "'nan'") for command, flags in NUMBERS.items() for flag in flags.split()),
    ],
)
def test_a_wrong_command_flag_or_word_is_named(place, capsys, arguments, named):
    before = _contents(place)
    with pytest.raises(SystemExit) as refused:
        main(shlex.split(arguments))
    assert refused.value.code == 2
    out, err = capsys.readouterr()
    assert named in err
    assert out == ""
    assert _contents(place) == before


def test_a_loss_that_is_not_finite_ends_the_training_before_a_checkpoint_is_written(place, capsys):
    flags = "--hidden-size 24 --num-hidden-layers 1 --window 8 --steps 1 --muon-lr 1e30 --out out"
    assert main(["train", "--corpus", "text.txt", *flags.split()]) == 2
    sentence = "llama: train: the validation loss is nan at step 0; try smaller learning rates"
    assert capsys.readouterr().err.splitlines()[-1] == sentence
    assert {path.name for path in (place / "out").iterdir()} == {"losses.csv", "run.safetensors"}
