"""The ladder: every rung trains, and what the report says of a rung's honesty is what the causality test says."""

import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from llama import evaluation, original
from llama.__main__ import main
from llama.implementation import load
from llama.ladder import RUNGS, Climb, Ladder, build, climb, llama_config, recipe, train
from llama.model import Llama
from llama.train import prepare
from llama.weigh import TAKEN_BACK, as_large
from tests.assertions import assert_close, assert_identical
from tests.tolerances import tolerance
from tests.zoo.decoder_layer import residual_carries_the_norm
from tests.zoo.rms_norm import mean_over_the_sequence

VOCAB = 11
SMALL = Ladder(steps=3, window=8, batch_size=4, hidden_size=32, num_hidden_layers=2)
TEN = replace(SMALL, steps=10)
FLAGS = ["--steps", "3", "--window", "8", "--batch-size", "4", "--hidden-size", "32", "--num-hidden-layers", "2"]
NAMES = [rung.name for rung in RUNGS]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text("to be or not to be, that is the question\n" * 40)
    return path


def _windows(vocab=VOCAB, window=8, count=16):
    return torch.randint(vocab, (count, window + 1), generator=torch.Generator().manual_seed(0))


def _a_later_token_moves_an_earlier_logit(model, windows):
    """The causality test: the same dropout for both, where a model has some that stays on."""
    changed = windows.clone()
    changed[:, -1] = (changed[:, -1] + 1) % VOCAB
    logits = []
    with evaluation.as_it_is(model), torch.no_grad():
        for ids in (windows, changed):
            torch.manual_seed(0)
            logits.append(model(ids)[:, :-1])
    return not torch.equal(*logits)


@pytest.mark.parametrize("rung", RUNGS, ids=NAMES)
def test_the_leak_column_and_the_causality_test_agree(rung):
    model, windows = build(SMALL, rung, VOCAB, load("fused"), seed=0), _windows()
    assert evaluation.leak(model, windows).is_there == _a_later_token_moves_an_earlier_logit(model, windows)


def test_only_the_rung_without_a_mask_reads_the_future():
    leaking = [
        rung.name
        for rung in RUNGS
        if evaluation.leak(build(SMALL, rung, VOCAB, load("fused"), seed=0), _windows()).is_there
    ]
    assert leaking == ["attention-without-a-mask"]


def test_the_originals_norm_over_the_sequence_is_caught_without_any_training(monkeypatch):
    monkeypatch.setattr(original, "DROPOUT", 0.0)  # or the two losses would differ by what is dropped
    torch.manual_seed(0)
    model, windows = original.Original(VOCAB, window=8, d_model=16, n_layers=1, n_heads=2), _windows()
    assert _a_later_token_moves_an_earlier_logit(model, windows[:, :-1])
    assert evaluation.leak(model, windows).is_there


@pytest.fixture
def small_original(monkeypatch):
    """The tutorial's model, small and read from few batches."""
    monkeypatch.setattr(original, "Original", partial(original.Original, d_model=16, n_layers=1, n_heads=2))
    monkeypatch.setattr(original, "BATCHES", 1)


@pytest.mark.usefixtures("small_original")
def test_the_originals_two_losses_are_reported_beside_each_other(tmp_path, corpus, capsys, monkeypatch):
    monkeypatch.setattr(original, "STEPS", 2)
    monkeypatch.setattr(original, "READ_AT", (1, 2))
    arguments = ["--originals", "--rungs", "baseline", "--corpus", str(corpus), "--out", str(tmp_path), *FLAGS]
    assert main(["ladder", *arguments]) == 0
    assert "validation as reported  prefix-only validation" in capsys.readouterr().out
    assert "tutorial&#39;s last model" in (tmp_path / "index.html").read_text()


def test_the_original_has_as_many_parameters_as_the_tutorial_says():
    assert sum(p.numel() for p in original.Original(65).parameters()) == 2_370_246


def test_the_original_turns_pairs_by_the_tutorials_exponent():
    """Of four features the frequencies are 10000^(2/4) = 100 and 10000^0 = 1, clockwise, at position 1."""
    turned = original._turn(torch.tensor([[1.0, 0.0, 1.0, 0.0]]).expand(2, 4)[None, None])[0, 0, 1]
    by_hand = torch.tensor([math.cos(100), -math.sin(100), math.cos(1), -math.sin(1)])
    assert_close(turned, by_hand, "the turned pairs", tolerance(torch.float32))


def test_every_rung_begins_with_the_same_embedding():
    models = [build(SMALL, rung, VOCAB, load("fused"), seed=5) for rung in RUNGS]
    first, *others = (model.get_parameter("model.embed_tokens.weight").detach() for model in models)
    for other in others:
        assert_identical(other, first, "the embedding")


def test_each_rung_of_the_same_shape_has_the_same_first_weights():
    llama, oven = (build(SMALL, rung, VOCAB, load("fused"), seed=1) for rung in RUNGS[6:8])
    for (name, a), b in zip(llama.named_parameters(), oven.parameters(), strict=True):
        assert_identical(a.detach(), b.detach(), name)


def test_the_softmax_before_the_loss_cannot_get_below_ln_of_vocab_minus_one_plus_e_minus_one():
    model, windows = build(SMALL, RUNGS[0], VOCAB, load("fused"), seed=0), _windows()
    with torch.no_grad():
        model.get_parameter("lm_head.weight").mul_(1e6)  # as sure of itself as can be
    assert evaluation.parallel_loss(model, windows) >= math.log(VOCAB - 1 + math.e) - 1 - evaluation.ROUNDING


def test_the_default_ladder_reports_every_rung_and_writes_a_page_that_needs_no_other_file(tmp_path, corpus, capsys):
    assert main(["ladder", "--corpus", str(corpus), "--out", str(tmp_path), *FLAGS]) == 0
    report = capsys.readouterr().out
    lines = [line.split() for line in report.splitlines() if line]
    rows = {words[0]: words for words in lines if words[0] in NAMES}
    assert list(rows) == NAMES
    assert "These read the future: attention-without-a-mask." in report
    numbers = json.loads((tmp_path / "ladder.json").read_text())["rungs"]
    assert [n["rung"] for n in numbers] == NAMES
    for n in numbers:
        assert rows[n["rung"]][3] == f"{n['validation_loss']:.3f}"
        assert len(n["losses"]) == 3
    page = (tmp_path / "index.html").read_text()
    assert all(name in page for name in NAMES)
    for reference in ("src=", "<link", "<script", "url(http"):
        assert reference not in page


def test_a_learners_layers_climb(tmp_path, corpus, capsys):
    (tmp_path / "mine.py").write_text("def silu(x):\n    return x * x.sigmoid()\n")
    arguments = ["--impl", str(tmp_path / "mine.py"), "--corpus", str(corpus), "--out", str(tmp_path), *FLAGS]
    assert main(["ladder", "--rungs", "swiglu", *arguments]) == 0
    assert "Layers of mine" in capsys.readouterr().out


def test_several_seeds_are_reported_with_their_spread(tmp_path, corpus, capsys):
    arguments = ["--corpus", str(corpus), "--out", str(tmp_path), "--rungs", "baseline", "--seeds", "0", "1"]
    assert main(["ladder", *arguments, *FLAGS]) == 0
    a, b = (n["validation_loss"] for n in json.loads((tmp_path / "ladder.json").read_text())["rungs"])
    assert f"{(a + b) / 2:.3f} ± {abs(a - b) / math.sqrt(2):.3f}" in capsys.readouterr().out


def test_the_report_takes_the_leak_off_the_validation_loss():
    climb = Climb(RUNGS[3], 0, None, [], 0.0, 0.5, 0.0, evaluation.Leak(0.4, 3.0), 1.0, "")
    assert climb.prefix_loss == pytest.approx(3.1)
    assert replace(climb, leak=evaluation.Leak(0.4, 0.4)).prefix_loss == 0.5


# The best rung without one of its parts, and the last model beside the tutorial's.


@pytest.fixture(scope="module")
def prepared(corpus):
    return prepare(recipe(replace(SMALL, corpus=str(corpus)), RUNGS[-1], 0))


@pytest.fixture(scope="module")
def whole(prepared):
    return train(TEN, RUNGS[-1], 0, prepared, lambda: None)


@pytest.mark.parametrize("rung", TAKEN_BACK, ids=[rung.name for rung in TAKEN_BACK])
def test_whatever_is_taken_back_changes_how_the_loss_falls(rung, prepared, whole):
    assert train(TEN, rung, 0, prepared, lambda: None).losses != whole.losses


@pytest.mark.parametrize("rung", TAKEN_BACK, ids=[rung.name for rung in TAKEN_BACK])
def test_nothing_that_is_taken_back_but_the_tutorials_norm_reads_the_future(rung):
    model = build(SMALL, rung, VOCAB, load("fused"), seed=0)
    assert _a_later_token_moves_an_earlier_logit(model, _windows()) == (rung.name == "norm of each position")


@pytest.mark.parametrize(
    ("rung", "bug"),
    [
        (TAKEN_BACK[-2], {"rms_norm": mean_over_the_sequence}),
        (TAKEN_BACK[-1], {"decoder_layer": residual_carries_the_norm}),
    ],
    ids=[rung.name for rung in TAKEN_BACK[-2:]],
)
def test_what_is_the_tutorials_computes_what_the_known_bugs_compute(rung, bug):
    taken_back, buggy = (
        Llama(llama_config(SMALL, rung, VOCAB), layers).double()
        for layers in (rung.layers(load("vectorized")), load("vectorized").replacing("buggy", **bug))
    )
    buggy.load_state_dict(taken_back.state_dict())
    windows = _windows()
    with torch.no_grad():
        assert_close(taken_back(windows), buggy(windows), "the logits", tolerance(torch.float64))


def test_the_model_that_is_weighed_is_the_widest_that_is_not_larger():
    config = as_large(SMALL, 100_000, VOCAB)
    wider = replace(config, hidden_size=config.hidden_size + 2 * config.num_attention_heads)
    count, more = (
        sum(p.numel() for p in build(of, RUNGS[-1], VOCAB, load("fused"), 0).parameters()) for of in (config, wider)
    )
    assert count <= 100_000 < more
    assert (config.window, config.batch_size) == (16, 32)


def test_a_model_that_cannot_be_as_small_is_refused():
    with pytest.raises(ValueError, match="ladder: 2 layers do not fit into 100 parameters"):
        as_large(SMALL, 100, VOCAB)


@pytest.mark.usefixtures("small_original")
def test_the_weighing_is_reported_and_only_what_reads_the_future_is_set_off(tmp_path, corpus, capsys, monkeypatch):
    monkeypatch.setattr("llama.weigh.TIMED", 1)
    arguments = ["--weigh", "1", "--rungs", "baseline", "--corpus", str(corpus), "--out", str(tmp_path), *FLAGS]
    assert main(["ladder", *arguments]) == 0
    report = capsys.readouterr().out
    weighed = json.loads((tmp_path / "ladder.json").read_text())["weighed"]
    (tutorials,), (best,) = weighed["original"], weighed["best"]
    assert tutorials["parameters"] >= best["parameters"]
    assert f"{tutorials['reported']:.3f}" in report
    assert f"{best['prefix']:.3f}" in report
    for name, (without,) in weighed["without"].items():
        leaks = abs(without["reported"] - without["prefix"]) > evaluation.ROUNDING
        assert leaks == (name == "norm of each position")


def test_a_loss_that_is_no_number_is_a_result_of_the_weighing_and_an_end_of_the_climb(prepared):
    broken = replace(RUNGS[-1], recipe=RUNGS[-1].recipe | {"peak_lr": 1e30, "max_norm": math.inf})
    trained = train(TEN, broken, 0, prepared, lambda: None)
    assert not math.isfinite(trained.losses[-1])
    assert len(trained.losses) < TEN.steps
    with pytest.raises(ValueError, match=rf"ladder: the loss of best is nan at step {len(trained.losses) - 1}"):
        climb(TEN, broken, 0, prepared, lambda: None)
