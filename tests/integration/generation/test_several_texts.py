"""Several texts at once, drafts and weights of few bits: each text is what the model alone would write."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama.__main__ import main
from llama.generation import serving, speculation
from llama.generation import stream as streaming
from llama.generation.serving import serve
from llama.generation.speculation import speculate
from llama.generation.stream import generate, stream
from llama.implementation import load
from llama.model import checkpoint
from llama.model.batch_decoder import BatchDecoder
from llama.model.compiled_decoder import CompiledDecoder
from llama.model.config import LlamaConfig
from llama.model.decoder import Decoder
from llama.model.llama import Llama
from llama.model.paged_cache import Pages
from llama.model.quantized import codes_of, quantized
from llama.text.tokenizer import CharTokenizer

CHARACTERS = "\n abcdefghij"
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.4}


def _model(seed=1, implementation="fused", **more):
    torch.manual_seed(seed)
    sizes = {"vocab_size": len(CHARACTERS), "num_key_value_heads": 2, "max_position_embeddings": 40}
    return Llama(LlamaConfig(**(SIZES | sizes | more)), implementation).eval()


def _prompts(seed, lengths):
    random = torch.Generator().manual_seed(seed)
    return [torch.randint(len(CHARACTERS), (length,), generator=random) for length in lengths]


def _alone(model, prompt, count, **sampling):
    return [int(token) for token in stream(model, prompt[None], count, **sampling)]


def _together(model, prompts, count, **more):
    texts = [[] for _ in prompts]
    for which, token, _ in serve(model, prompts, count, **more):
        texts[which].append(token)
    return texts


# Several texts at once.


@pytest.mark.parametrize("whose", ["fused", "vectorized"])
@given(
    lengths=st.lists(st.integers(1, 16), min_size=1, max_size=4),
    at_once=st.integers(1, 3),
    chunk=st.integers(1, 9),
    temperature=st.sampled_from([0.0, 0.8]),
    seed=st.integers(0, 99),
)
def test_each_text_is_what_it_would_be_alone(whose, lengths, at_once, chunk, temperature, seed):
    """Beyond the context too, where the older half is forgotten."""
    model = _model(implementation=whose, max_position_embeddings=16)
    prompts, sampling = _prompts(seed, lengths), {"temperature": temperature, "seed": seed}
    texts = _together(model, prompts, 12, at_once=at_once, chunk=chunk, **sampling)
    assert texts == [_alone(model, prompt, 12, **sampling) for prompt in prompts]


def test_texts_end_where_they_would_end_alone_and_others_take_their_places():
    model, prompts = _model(), _prompts(3, [5, 1, 9, 3])
    sampling = {"temperature": 1.0, "seed": 4, "ends": (2, 7)}
    ended = [which for which, _, ended in serve(model, prompts, 50, at_once=2, **sampling) if ended]
    assert sorted(ended) == [0, 1, 2, 3]
    assert _together(model, prompts, 50, at_once=2, **sampling) == [_alone(model, p, 50, **sampling) for p in prompts]


def test_prompts_are_taken_as_there_is_room_for_them():
    model, taken = _model(), []

    def prompts():
        for prompt in _prompts(1, [3, 3, 3]):
            taken.append(prompt)
            yield prompt

    drawn = serve(model, prompts(), 5, at_once=2)
    next(drawn)
    assert len(taken) == 2
    assert len(list(drawn)) == 3 * 5 - 1
    assert len(taken) == 3


def test_a_text_that_has_ended_leaves_its_pages_to_others(monkeypatch):
    made = []
    monkeypatch.setattr(serving, "Pages", lambda *of: made.append(Pages(*of, page_size=4)) or made[-1])
    _together(_model(), _prompts(1, [10] * 8), 6, at_once=2)
    (pages,) = made
    assert sorted(pages.free) == list(range(pages.keys.shape[1]))
    assert len(pages.free) == 8  # two texts of 15 positions that are read, in four pages each


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"at_once": 0}, "generate: at_once must be at least 1, got 0"),
        ({"chunk": 0}, "generate: chunk must be at least 1, got 0"),
        ({"seed": -1}, "generate: seed must lie in 0..2^63 - 1, got -1"),
        ({"max_new_tokens": -1}, "generate: max_new_tokens must not be negative, got -1"),
        ({"temperature": 1e-9}, "generate: temperature must be 0 or at least 1e-06, got 1e-09"),
    ],
)
def test_what_cannot_be_used_is_refused_before_the_first_token_is_asked_for(change, sentence):
    with pytest.raises(ValueError, match=r"^generate") as refused:
        serve(**({"model": _model(), "prompts": iter([]), "max_new_tokens": 5} | change))
    assert str(refused.value) == sentence


@pytest.mark.parametrize("length", [0, 41])
def test_a_prompt_that_does_not_fit_is_refused_when_its_turn_comes(length):
    drawn = serve(_model(), [*_prompts(1, [3]), torch.zeros(length, dtype=torch.int64)], 2, at_once=1)
    assert [next(drawn).which, next(drawn).which] == [0, 0]
    with pytest.raises(ValueError, match=f"generate: the prompt must have 1 to 40 tokens, got {length}"):
        next(drawn)


def test_layers_that_know_no_cache_write_one_text_after_the_other(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from llama.layers.model.decoder_layer import compose\nfrom llama.implementation import load\n"
        "def decoder_layer(*arguments):\n    return compose(load('vectorized'), *arguments)\n"
    )
    model, prompts = _model(implementation=load(tmp_path / "mine.py")), _prompts(1, [3, 6])
    assert _together(model, prompts, 5, seed=2) == _together(_model(), prompts, 5, seed=2)


# A prompt in chunks.


@given(length=st.integers(1, 40), chunk=st.integers(1, 41))
def test_a_prompt_that_is_read_in_chunks_is_continued_in_the_same_way(length, chunk):
    model, (prompt,) = _model(), _prompts(length, [length])
    assert _alone(model, prompt, 6, seed=3, chunk=chunk) == _alone(model, prompt, 6, seed=3)


@pytest.mark.parametrize("whose", ["fused", "vectorized"])
def test_no_pass_reads_more_than_a_chunk(whose, monkeypatch):
    """Neither of the model nor of its decoder."""
    model, prompts, read = _model(implementation=whose), _prompts(1, [40, 25, 25]), []

    def watched(compute):
        return lambda self, ids, *more: read.append(ids.numel()) or compute(self, ids, *more)

    monkeypatch.setattr(Llama, "forward", watched(Llama.forward))
    monkeypatch.setattr(BatchDecoder, "__call__", watched(BatchDecoder.__call__))
    _alone(model, prompts[0], 1, chunk=15)
    assert read == [15, 15, 10]
    read.clear()
    _together(model, prompts, 1, chunk=15)
    assert max(read) == 15
    read.clear()
    monkeypatch.setattr(speculation, "CHUNK", 15)
    list(speculate(model, model, prompts[0], 1))
    assert read == [15, 15, 10]


@pytest.mark.parametrize("texts", [1, 2])
def test_for_no_tokens_no_weights_are_laid_out(texts, monkeypatch):
    model, (prompt,) = _model(), _prompts(1, [4])
    for of in (Decoder, BatchDecoder):
        monkeypatch.setattr(of, "__init__", lambda *_, **__: pytest.fail("the weights were laid out"))
    assert list(stream(model, prompt.expand(texts, -1), 0)) == []
    assert list(speculate(model, model, prompt, 0)) == []
    assert list(serve(model, [prompt] * texts, 0)) == []


# A draft.


@pytest.mark.parametrize("seed", [1, 2])
@given(length=st.integers(1, 40), draft_tokens=st.integers(1, 6), count=st.integers(0, 25))
def test_a_draft_changes_nothing_at_temperature_0(seed, length, draft_tokens, count):
    """The same model keeps all that it proposes, another one little."""
    model, (prompt,) = _model(), _prompts(length, [length])
    steps = list(speculate(model, _model(seed), prompt, count, draft_tokens, temperature=0.0))
    assert [token for step in steps for token in step] == _alone(model, prompt, count, temperature=0.0)
    assert all(1 <= len(step) <= draft_tokens + 1 for step in steps)
    if seed == 1 and length + count <= 40:
        assert len(steps) == -(-count // (draft_tokens + 1))


@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_a_long_prompt_is_read_in_chunks_with_a_draft_too(chunk, monkeypatch):
    monkeypatch.setattr(speculation, "CHUNK", chunk)
    model, (prompt,) = _model(), _prompts(1, [30])
    steps = list(speculate(model, _model(2), prompt, 8, temperature=0.0))
    assert [token for step in steps for token in step] == _alone(model, prompt, 8, temperature=0.0)


def test_what_is_accepted_is_asked_of_both_models_filtered_distributions_with_numbers_of_their_own():
    """The draft was drawn from its row, and no random number is used twice."""
    asked = []

    def accept(draft_logits, target_logits, draft_ids, u, v):
        asked.append((draft_logits, target_logits, draft_ids, u, v))
        return load("fused").speculative_accept(draft_logits, target_logits, draft_ids, u, v)

    layers = load("fused").replacing("spying", speculative_accept=accept)
    model, draft, (prompt,) = _model(implementation=layers), _model(2), _prompts(1, [4])
    steps = list(speculate(model, draft, prompt, 20, 3, temperature=0.7, top_k=5, seed=3))
    seen, used = prompt.tolist(), []
    for (draft_logits, target_logits, draft_ids, u, v), step in zip(asked, steps, strict=True):
        proposed = torch.tensor([seen + draft_ids.tolist()])
        for rows, of in ((draft_logits, draft), (target_logits, model)):
            logits = of(proposed)[0, len(seen) - 1 :][: len(rows)]
            torch.testing.assert_close(rows, layers.filter_logits(logits, 0.7, 5), check_stride=False)
        used += [*u.tolist(), v.item()]
        seen += step
    assert len(set(used)) == len(used) > 20


def test_a_text_with_a_draft_ends_at_the_same_token():
    model, (prompt,) = _model(), _prompts(1, [4])
    text = _alone(model, prompt, 30, temperature=0.0)
    ends = (text[9],)
    steps = speculate(model, model, prompt, 30, temperature=0.0, ends=ends)
    assert [token for step in steps for token in step] == _alone(model, prompt, 30, temperature=0.0, ends=ends)


@pytest.mark.parametrize("filters", [{}, {"temperature": 0.5, "top_k": 4}, {"min_p": 0.1}])
def test_all_that_the_model_itself_proposes_is_kept(filters):
    model, (prompt,) = _model(), _prompts(1, [4])
    steps = [len(step) for step in speculate(model, model, prompt, 30, 4, seed=3, **filters)]
    assert steps == [5] * 6


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"token_ids": torch.ones(1, 3, dtype=torch.int64)}, "generate: token_ids must be [seq], got [1, 3]"),
        ({"draft_tokens": 0}, "generate: draft_tokens must be at least 1, got 0"),
        ({"draft": _model(vocab_size=5)}, "generate: the draft must have the model's vocab_size of 12, got 5"),
        ({"token_ids": torch.arange(0)}, "generate: the prompt must have 1 to 40 tokens, got 0"),
        ({"seed": -1}, "generate: seed must lie in 0..2^63 - 1, got -1"),
    ],
)
def test_a_draft_that_does_not_fit_is_refused(change, sentence):
    given = {"model": _model(), "draft": _model(2), "token_ids": torch.arange(3), "max_new_tokens": 5} | change
    with pytest.raises(ValueError, match=r"^generate") as refused:
        speculate(**given)
    assert str(refused.value) == sentence


# Weights of few bits.


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("whose", ["naive", "vectorized", "fused"])
@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
def test_a_quantised_model_computes_with_the_weights_that_its_codes_mean(bits, whose, tied):
    model = _model(implementation=whose, tie_word_embeddings=tied, num_hidden_layers=1)
    few = quantized(model, bits)
    weights = {name: of.dequantized() if (of := codes_of(w)) else w for name, w in few.held().items()}
    other = Llama(dataclasses.replace(model.config, tie_word_embeddings=False), whose)
    other.load_state_dict(weights)
    ids = torch.arange(10)[None] % len(CHARACTERS)
    torch.testing.assert_close(few(ids), other(ids))


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantised_model_decodes_to_the_same_text_as_it_computes_in_passes(bits):
    few, prompts = quantized(_model(), bits), _prompts(2, [3, 8])
    assert _together(few, prompts, 30, temperature=0.0) == [_alone(few, p, 30, temperature=0.0) for p in prompts]


def test_a_quantised_model_holds_one_byte_for_a_weight_and_shares_its_embedding():
    model = _model()
    few = quantized(model, 8)
    matrices = [t for name, t in model.state_dict().items() if t.ndim == 2 and "embed" not in name]
    codes = [buffer for name, buffer in few.named_buffers() if name.endswith("codes")]
    assert sum(t.numel() for t in codes) == sum(t.numel() for t in matrices)
    assert {t.dtype for t in codes} == {torch.int8}
    assert few.held()["model.embed_tokens.weight"].data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_a_quantised_model_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"is not written: a model of 8 bits is made from a checkpoint"):
        quantized(_model(), 8).save_pretrained(tmp_path / "few")
    assert not (tmp_path / "few").exists()


# The command line.


@pytest.fixture
def folder(tmp_path):
    checkpoint.save(tmp_path / "checkpoint", _model(), CharTokenizer(CHARACTERS))
    (tmp_path / "prompts.txt").write_text("abc\n\nj\nd e f g h\n")
    return tmp_path


def _lines(capsys, folder, *arguments):
    capsys.readouterr()
    assert main(["generate", str(folder / "checkpoint"), *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_each_line_of_a_file_is_continued_as_it_would_be_alone(folder, capsys):
    sampling = ("--max-new-tokens", 30, "--seed", 3)
    out = _lines(capsys, folder, "--prompts-file", folder / "prompts.txt", "--at-once", 2, *sampling)
    found = {line["line"]: line for line in map(json.loads, out.splitlines())}
    assert {number: line["prompt"] for number, line in found.items()} == {1: "abc", 3: "j", 4: "d e f g h"}
    for line in found.values():
        alone = _lines(capsys, folder, "--prompt", line["prompt"], *sampling)
        assert alone == line["prompt"] + line["text"] + "\n"


def test_no_token_at_all_leaves_every_prompt_as_it_is(folder, capsys):
    out = _lines(capsys, folder, "--prompts-file", folder / "prompts.txt", "--max-new-tokens", 0)
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["", "", ""]


def test_a_draft_on_the_command_line_gives_the_same_text(folder, capsys):
    likeliest = ("--prompt", "abc", "--temperature", 0, "--max-new-tokens", 30)
    alone = _lines(capsys, folder, *likeliest)
    assert _lines(capsys, folder, *likeliest, "--draft", folder / "checkpoint", "--draft-tokens", 3) == alone


@pytest.mark.skipif(not shutil.which("c++"), reason="there is no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch about itself, as it imports its compiler
@pytest.mark.parametrize("more", [(), ("--quantize", 8), ("--draft",)], ids=["alone", "in 8 bits", "with a draft"])
def test_programs_on_the_command_line_give_the_same_text(folder, capsys, more, monkeypatch):
    likeliest = ("--prompt", "abc", "--temperature", 0, "--max-new-tokens", 20, *more)
    if "--draft" in more:
        likeliest = (*likeliest, folder / "checkpoint", "--draft-tokens", 2)
    alone, made = _lines(capsys, folder, *likeliest), []
    several = CompiledDecoder.several
    monkeypatch.setattr(CompiledDecoder, "several", lambda self, *a: made.append(self.tokens) or several(self, *a))
    assert _lines(capsys, folder, *likeliest, "--compile") == alone
    assert set(made) == ({1, 3} if "--draft" in more else {1})


def test_generate_compiles_where_it_is_asked_to(monkeypatch):
    made, (prompt,) = [], _prompts(1, [4])
    monkeypatch.setattr(streaming, "CompiledDecoder", lambda *of: made.append(of) or Decoder(*of))
    model = _model()
    alone = generate(model, prompt[None], 5, temperature=0)
    assert not made
    assert torch.equal(generate(model, prompt[None], 5, temperature=0, compile=True), alone)
    assert made


@pytest.mark.skipif(not shutil.which("c++"), reason="there is no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_programs_check_what_another_draft_proposes_beyond_the_context():
    of = LlamaConfig(vocab_size=17, hidden_size=32, num_hidden_layers=1, max_position_embeddings=24)
    torch.manual_seed(0)
    model, draft, prompt = Llama(of), Llama(of), torch.randint(17, (5,))
    alone = torch.stack(list(stream(model, prompt[None], 40, temperature=0))).flatten().tolist()
    steps = list(speculate(model, draft, prompt, 40, 2, temperature=0, compile=True))
    assert [token for step in steps for token in step] == alone
    assert len(steps) > 14  # some of what is proposed is not kept


def test_a_text_is_written_as_soon_as_it_is_whole_so_that_a_run_that_is_killed_leaves_it(folder):
    arguments = ("--prompts-file", folder / "prompts.txt", "--at-once", 1, "--max-new-tokens", 300)
    command = [sys.executable, "-m", "llama", "generate", folder / "checkpoint", *arguments]
    one_core = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=one_core) as run:
        assert json.loads(run.stdout.readline())["line"] == 1
        assert run.poll() is None
        run.kill()
