"""The ladder: every rung trains, and what the report says of a rung's honesty is what the causality test says."""

import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from llama.__main__ import main
from llama.implementation import load
from llama.ladder import drawings, pictures, report, tutorial
from llama.ladder.climb import LEAK_WINDOWS, Climb, Ladder, build, climb, llama_config, recipe, train, widest
from llama.ladder.comparison import TAKEN_BACK, WHOLE, Weighed, Weighing, _ask, _reglu, as_large, steps_in
from llama.ladder.pictures import attention_weights
from llama.ladder.rungs import RUNGS, TOKENS
from llama.model.llama import Llama
from llama.model.weights import count
from llama.training import evaluation
from llama.training.preparation import prepare
from tests.judge.assertions import assert_close, assert_identical
from tests.judge.tolerances import tolerance
from tests.zoo.model.decoder_layer import residual_carries_the_norm
from tests.zoo.model.rms_norm import mean_over_the_sequence

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


@pytest.mark.parametrize("rung", RUNGS, ids=NAMES)
def test_the_leak_column_and_the_causality_test_agree(rung):
    model, windows = build(SMALL, rung, VOCAB, load("fused"), seed=0), _windows()
    assert evaluation.leak(model, windows).is_there == (evaluation.moved_by_the_last(model, windows, VOCAB) > 0)


def test_only_the_rung_without_a_mask_reads_the_future():
    leaking = [
        rung.name
        for rung in RUNGS
        if evaluation.leak(build(SMALL, rung, VOCAB, load("fused"), seed=0), _windows()).is_there
    ]
    assert leaking == ["attention-without-a-mask"]


def test_the_originals_norm_over_the_sequence_is_caught_without_any_training(monkeypatch):
    monkeypatch.setattr(tutorial, "DROPOUT", 0.0)  # or the two losses would differ by what is dropped
    torch.manual_seed(0)
    model, windows = tutorial.Original(VOCAB, window=8, d_model=16, n_layers=1, n_heads=2), _windows()
    assert evaluation.moved_by_the_last(model, windows[:, :-1], VOCAB) > 0
    assert evaluation.leak(model, windows).is_there


@pytest.fixture
def small_original(monkeypatch):
    """The tutorial's model, small and read from few batches."""
    monkeypatch.setattr(tutorial, "Original", partial(tutorial.Original, d_model=16, n_layers=1, n_heads=2))
    monkeypatch.setattr(tutorial, "BATCHES", 1)


@pytest.mark.usefixtures("small_original")
def test_the_originals_two_losses_are_reported_beside_each_other(tmp_path, corpus, capsys, monkeypatch):
    monkeypatch.setattr(tutorial, "STEPS", 2)
    monkeypatch.setattr(tutorial, "READ_AT", (1, 2))
    arguments = ["--originals", "--rungs", "baseline", "--corpus", str(corpus), "--out", str(tmp_path), *FLAGS]
    assert main(["ladder", *arguments]) == 0
    assert "validation as reported  prefix-only validation" in capsys.readouterr().out
    assert "tutorial&#39;s last model" in (tmp_path / "index.html").read_text()


def test_the_original_has_as_many_parameters_as_the_tutorial_says():
    assert sum(p.numel() for p in tutorial.Original(65).parameters()) == 2_370_246


def test_the_original_turns_pairs_by_the_tutorials_exponent():
    """Of four features the frequencies are 10000^(2/4) = 100 and 10000^0 = 1, clockwise, at position 1."""
    turned = tutorial._turn(torch.tensor([[1.0, 0.0, 1.0, 0.0]]).expand(2, 4)[None, None])[0, 0, 1]
    by_hand = torch.tensor([math.cos(100), -math.sin(100), math.cos(1), -math.sin(1)])
    assert_close(turned, by_hand, "the turned pairs", tolerance(torch.float32))


def test_every_rung_begins_with_the_same_embedding():
    models = [build(SMALL, rung, VOCAB, load("fused"), seed=5) for rung in RUNGS]
    first, *others = (model.get_parameter("model.embed_tokens.weight").detach() for model in models)
    for other in others:
        assert_identical(other, first, "the embedding")


def test_each_rung_of_the_same_shape_has_the_same_first_weights():
    same = [rung for rung in RUNGS if rung.name in ("llama", "oven")]
    llama, oven = (build(SMALL, rung, VOCAB, load("fused"), seed=1) for rung in same)
    for (name, a), b in zip(llama.named_parameters(), oven.parameters(), strict=True):
        assert_identical(a.detach(), b.detach(), name)


def test_the_softmax_before_the_loss_cannot_get_below_ln_of_vocab_minus_one_plus_e_minus_one():
    """Sure of every token, and right: only the second softmax stands between the loss and zero."""
    model, windows = build(SMALL, RUNGS[0], VOCAB, load("fused"), seed=0), torch.full((4, 9), 3)
    with torch.no_grad():
        head, (hidden,) = model.get_parameter("lm_head.weight"), _hidden(model, windows[:1, :1])
        head.copy_(torch.zeros_like(head))
        head[3] = 1e6 * hidden
    least = math.log(VOCAB - 1 + math.e) - 1
    assert evaluation.parallel_loss(model, windows) == pytest.approx(least, abs=evaluation.ROUNDING)


def _hidden(model, token_ids):
    """What the head is given for the last token, read off by heads that pass on one feature each."""
    head = model.get_parameter("lm_head.weight")
    kept, hidden = head.clone(), []
    model.parts = replace(model.parts, softmax=False)
    for feature in range(head.shape[1]):
        head.zero_()
        head[0, feature] = 1
        hidden.append(model(token_ids)[0, -1, 0])
    head.copy_(kept)
    model.parts = replace(model.parts, softmax=True)
    return torch.stack(hidden)[None]


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
    assert pictures.BY_HAND in page
    assert pictures.GRADIENTS in page
    for reference in ("src=", "<link", "<script", "url(http"):
        assert reference not in page


def test_the_rings_around_the_gradients_by_hand_are_those_of_autograd(tmp_path, corpus, monkeypatch):
    drawn = []
    monkeypatch.setattr(drawings, "by_layer", lambda values, title, **more: drawn.append((values, more)) or "<svg/>")
    llama, by_hand = (next(rung for rung in RUNGS if rung.name == name) for name in ("llama", "by-hand"))
    config = replace(SMALL, corpus=str(corpus), steps=2)
    prepared = prepare(recipe(config, llama, 0))
    climbs = [climb(config, rung, 0, prepared, lambda: None) for rung in (llama, by_hand)]
    wrong = climbs[1].model.layers.replacing("wrong", rms_norm_backward=lambda grad, x, weight, eps: (grad, 0 * weight))
    climbs[1].model._within = wrong
    pictures.pictures(config, climbs, prepared)
    (sizes, rings), (largest, _) = drawn[:2]
    assert sizes["norm"] == {"model.norm.weight": 0.0}
    assert rings["rings"]["norm"]["model.norm.weight"] > 0
    assert largest["norm"]["model.norm.weight"] == 1.0


def test_a_learners_layers_climb(tmp_path, corpus, capsys):
    (tmp_path / "mine.py").write_text("def silu(x):\n    return x * x.sigmoid()\n")
    arguments = ["--impl", str(tmp_path / "mine.py"), "--corpus", str(corpus), "--out", str(tmp_path), *FLAGS]
    assert main(["ladder", "--rungs", "swiglu", *arguments]) == 0
    assert "Layers of mine" in capsys.readouterr().out


def test_several_seeds_are_reported_with_their_spread(tmp_path, corpus, capsys):
    arguments = ["--corpus", str(corpus), "--out", str(tmp_path), "--rungs", "baseline", "--seeds", "0", "1"]
    assert main(["ladder", *arguments, *FLAGS]) == 0
    first, second = json.loads((tmp_path / "ladder.json").read_text())["rungs"]
    said = capsys.readouterr().out
    for number in ("validation_loss", "bits_per_byte"):
        a, b = first[number], second[number]
        assert f"{(a + b) / 2:.3f} ± {abs(a - b) / math.sqrt(2):.3f}" in said


# The rung on tokens.


def test_tokens_are_climbed_where_they_are_asked_for_and_compared_in_bits_per_byte(tmp_path, corpus, capsys):
    arguments = ["--corpus", str(corpus), "--out", str(tmp_path), "--rungs", "best", "tokens", *FLAGS]
    assert main(["ladder", *arguments]) == 0
    best, tokens = json.loads((tmp_path / "ladder.json").read_text())["rungs"]
    said = capsys.readouterr().out
    for climbed in (best, tokens):
        # Each character of this text is a byte.
        assert climbed["bits_per_byte"] == pytest.approx(climbed["prefix_loss"] / math.log(2))
        assert f"{climbed['bits_per_byte']:.3f}" in said
    assert tokens["rung"] == "tokens"
    assert tokens["parameters"] <= best["parameters"]
    assert TOKENS.change in (tmp_path / "index.html").read_text()


def test_the_losses_on_tokens_are_per_character_that_they_stand_for(corpus):
    prepared = prepare(recipe(replace(SMALL, corpus=str(corpus)), TOKENS, 0))
    of = climb(SMALL, TOKENS, 0, prepared, lambda: None)
    training, validation, test = prepared.splits
    for found, ids in (
        (of.train_loss, training[: len(validation)]),
        (of.validation_loss, validation),
        (of.test_loss, test),
    ):
        whole = evaluation.loss(of.model, ids, SMALL.window) * (len(ids) - 1)
        assert found == pytest.approx(whole / len(prepared.tokenizer.decode(ids[1:])))
    per_token = train(SMALL, TOKENS, 0, prepared, lambda: None).losses[0]  # of the first batch
    assert of.losses[0] == pytest.approx(per_token * prepared.per_character(training[: len(validation)]))
    leak = evaluation.leak(of.model, evaluation.spread(validation, SMALL.window, LEAK_WINDOWS))
    assert of.leak.parallel == pytest.approx(leak.parallel * prepared.per_character(validation))
    assert of.leak.prefix == pytest.approx(of.leak.parallel)
    assert of.bytes_per_character == 1.0


def test_a_model_on_tokens_is_as_wide_as_it_may_be_without_being_larger():
    parameters = count(llama_config(SMALL, TOKENS, 65))
    config = widest(SMALL, TOKENS, 300, parameters)
    wider = replace(config, hidden_size=config.hidden_size + 2 * config.num_attention_heads)
    assert count(llama_config(config, TOKENS, 300)) <= parameters < count(llama_config(wider, TOKENS, 300))


def test_the_report_takes_the_leak_off_the_validation_loss():
    climb = Climb(RUNGS[3], 0, None, [], 0.0, 0.5, 0.0, evaluation.Leak(0.4, 3.0), 1.0, "", 1.0)
    assert climb.prefix_loss == pytest.approx(3.1)
    assert replace(climb, leak=evaluation.Leak(0.4, 0.4)).prefix_loss == 0.5
    assert climb.bits_per_byte == pytest.approx(3.1 / math.log(2))
    assert replace(climb, bytes_per_character=2.0).bits_per_byte == pytest.approx(3.1 / math.log(2) / 2)


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
    assert (evaluation.moved_by_the_last(model, _windows(), VOCAB) > 0) == (rung.name == "norm of each position")


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


@pytest.mark.usefixtures("small_original")
def test_the_model_that_is_weighed_is_the_widest_that_is_not_larger():
    budget = sum(p.numel() for p in tutorial.Original(VOCAB).parameters())
    config = as_large(SMALL, VOCAB)
    wider = replace(config, hidden_size=config.hidden_size + 2 * config.num_attention_heads)
    count, more = (
        sum(p.numel() for p in build(of, RUNGS[-1], VOCAB, load("fused"), 0).parameters()) for of in (config, wider)
    )
    assert count <= budget < more
    assert (config.window, config.batch_size) == (16, 32)


@pytest.mark.usefixtures("small_original")
def test_a_model_that_cannot_be_as_small_is_refused():
    budget = sum(p.numel() for p in tutorial.Original(VOCAB).parameters())
    with pytest.raises(ValueError, match=f"ladder: 99 layers do not fit into {budget:,} parameters"):
        as_large(replace(SMALL, num_hidden_layers=99), VOCAB)


@pytest.mark.parametrize(("seconds", "each", "steps"), [(10.0, 2.0, 5), (10.0, 3.0, 3), (1.0, 9.0, 1)])
def test_as_many_steps_are_taken_as_fit_and_at_least_one(seconds, each, steps):
    assert steps_in(seconds, each) == steps


def test_what_has_been_climbed_is_kept_when_the_weighing_fails(tmp_path, corpus, monkeypatch):
    def fails(*_):
        raise OSError("the power is cut")

    monkeypatch.setattr("llama.ladder.command.weigh", fails)
    arguments = ["--weigh", "1", "--rungs", "baseline", "--corpus", str(corpus), "--out", str(tmp_path), *FLAGS]
    assert main(["ladder", *arguments]) == 2
    assert "baseline" in (tmp_path / "index.html").read_text()
    (kept,) = json.loads((tmp_path / "ladder.json").read_text())["rungs"]
    assert kept["rung"] == "baseline"


def test_a_learner_is_told_which_layers_are_not_theirs_where_one_is_replaced(tmp_path, corpus, capsys):
    composed = "from llama.layers.model.self_attention import compose\nfrom llama.implementation import load\n"
    composed += "def self_attention(*given, **more):\n    return compose(load('fused'), *given, **more)\n"
    (tmp_path / "mine.py").write_text(composed)
    arguments = ["--impl", str(tmp_path / "mine.py"), "--corpus", str(corpus), "--out", str(tmp_path), *FLAGS]
    assert main(["ladder", "--rungs", "attention", *arguments]) == 0
    sentence = "self_attention of mine would not see it: there the project's own is used."
    assert sentence in capsys.readouterr().out
    assert sentence.replace("'", "&#39;") in (tmp_path / "index.html").read_text()


@pytest.mark.usefixtures("small_original")
def test_the_weighing_is_reported_and_only_what_reads_the_future_is_set_off(tmp_path, corpus, capsys, monkeypatch):
    monkeypatch.setattr("llama.ladder.comparison.TIMED", 1)
    arguments = ["--weigh", "1", "--rungs", "baseline", "--corpus", str(corpus), "--out", str(tmp_path), *FLAGS]
    assert main(["ladder", *arguments]) == 0
    report = capsys.readouterr().out
    weighed = json.loads((tmp_path / "ladder.json").read_text())["weighed"]
    (tutorials,), (best,) = weighed["original"], weighed["best"]
    assert tutorials["parameters"] >= best["parameters"]
    assert f"{tutorials['reported']:.3f}" in report
    assert f"{best['prefix']:.3f}" in report
    for name, (without,) in weighed["without"].items():
        assert (abs(without["leak"]) > evaluation.ROUNDING) == (name == "norm of each position")


def test_a_loss_that_is_no_number_is_a_result_of_the_weighing_and_an_end_of_the_climb(prepared):
    broken = replace(RUNGS[-1], recipe=RUNGS[-1].recipe | {"peak_lr": 1e30, "max_norm": math.inf})
    trained = train(TEN, broken, 0, prepared, lambda: None)
    assert not math.isfinite(trained.losses[-1])
    assert len(trained.losses) < TEN.steps
    with pytest.raises(ValueError, match=rf"ladder: the loss of best is nan at step {len(trained.losses) - 1}"):
        climb(TEN, broken, 0, prepared, lambda: None)


@pytest.mark.parametrize("rung", RUNGS, ids=NAMES)
def test_another_seed_begins_with_other_weights(rung):
    one, other = (build(SMALL, rung, VOCAB, load("fused"), seed).get_parameter("lm_head.weight") for seed in (0, 1))
    assert (one != other).all()


def test_relu_in_the_gate_closes_it_for_what_is_negative():
    x, one = torch.tensor([[2.0], [-2.0]]), torch.tensor([[3.0]])
    assert_identical(_reglu(x, one, one, one), torch.tensor([[108.0], [0.0]]), "3 · relu(6) · 6, and nothing")


def test_each_loss_is_that_of_its_own_split(prepared):
    texts = ["to be or not to be\n" * 9, "that is the question\n" * 9, "no\n" * 60]
    splits = [prepared.tokenizer.encode(text.replace("n", "o")) for text in texts]
    of = climb(TEN, RUNGS[1], 0, prepared._replace(splits=splits), lambda: None)
    length = len(splits[1])
    own = [evaluation.loss(of.model, ids, TEN.window) for ids in (splits[0][:length], *splits[1:])]
    assert [of.train_loss, of.validation_loss, of.test_loss] == own
    assert len(set(own)) == 3
    weighed = _ask(of.model, prepared._replace(splits=splits), TEN.window, 10, 1.0)
    assert weighed.reported == own[2]


def test_tokens_per_second_are_those_of_all_steps(prepared, monkeypatch):
    trained = train(TEN, RUNGS[1], 0, prepared, lambda: None)._replace(seconds=2.0)
    monkeypatch.setattr("llama.ladder.climb.train", lambda *_: trained)
    of = climb(TEN, RUNGS[1], 0, prepared, lambda: None)
    assert of.tokens_per_second == TEN.steps * TEN.batch_size * TEN.window / 2.0


# What the report makes of results.


def _climb(rung, seed, **changed):
    leak = evaluation.Leak(2.0, 2.0)
    values = {"train_loss": 1.0, "validation_loss": 2.0, "test_loss": 3.0, "leak": leak, "tokens_per_second": 4000.0}
    model = torch.nn.Linear(3, 4)
    return Climb(rung, seed, model, [9.0], **values | changed, sample="", bytes_per_character=1.25)


def test_a_row_of_the_ladder_has_each_number_in_its_column():
    honest, reading = RUNGS[1], RUNGS[3]
    table = report.rungs_table([_climb(honest, 0), _climb(reading, 0, leak=evaluation.Leak(0.5, 2.25))])
    assert table.columns[0] == "rung"
    assert [row.cells for row in table.rows] == [
        ("baseline", "16", "1.000", "2.000", "3.000", "2.000", "+0.0e+00", "7.4", "2.308", "4,000"),
        ("attention-without-a-mask", "16", "1.000", "2.000", "3.000", "3.750", "-1.750", "42.5", "4.328", "4,000"),
    ]
    assert [row.leaks for row in table.rows] == [False, True]


def _weighed(reported, leak=0.0, seconds=10.0):
    return Weighed(1000, 7, seconds, reported, evaluation.Leak(1.0 + leak, 1.0), 0.5)


def test_a_row_of_the_weighing_has_each_number_in_its_column():
    rows = report.against_section(
        Weighing([_weighed(1.5, -0.25)], [_weighed(1.25, -0.125)], [_weighed(1.0)], {})
    ).table.rows
    assert [row.cells[1:] for row in rows] == [
        ("1,000", "7", "10 s", "1.500", "1.750", "0.500"),
        ("1,000", "7", "10 s", "1.250", "1.375", "0.500"),
        ("1,000", "7", "10 s", "1.000", "1.000", "0.500"),
    ]
    assert [row.leaks for row in rows] == [True, True, False]


def test_a_part_is_worth_what_is_lost_without_it_from_the_same_seed():
    part, broken = TAKEN_BACK[0], TAKEN_BACK[1]
    without = {
        WHOLE: [_weighed(1.0), _weighed(2.0)],
        part: [_weighed(1.5, seconds=5.0), _weighed(2.5, seconds=5.0)],
        broken: [_weighed(1.0), _weighed(math.nan)],
    }
    rows = report.parts_section(Weighing([], [], [], without), "so").table.rows
    assert [row.cells[2:] for row in rows] == [
        ("1.500 ± 0.707", "1.500 ± 0.707", "", "1.00"),
        ("2.000 ± 0.707", "2.000 ± 0.707", "+0.500 ± 0.000", "0.50"),
        ("diverged", "diverged", "diverged", "1.00"),
    ]
    assert rows[1].cells[0] == "Muon: AdamW for every weight"
    assert not any(row.leaks for row in rows)
    json.dumps(report._weighed_numbers(Weighing([], [], [], without)), allow_nan=False)


# What is measured, and what is drawn.


def test_windows_that_are_spread_reach_from_the_first_token_to_the_last():
    ids = torch.arange(100)
    windows = evaluation.spread(ids, 8, 5)
    assert windows.shape == (5, 9)
    assert (windows[0, 0], windows[-1, -1]) == (0, 99)


def test_the_causality_test_finds_nothing_in_a_causal_model_and_the_norm_in_the_original():
    windows = _windows()
    causal = build(SMALL, RUNGS[-1], VOCAB, load("fused"), seed=0)
    assert evaluation.moved_by_the_last(causal, windows, VOCAB) == 0
    torch.manual_seed(0)
    tutorials = tutorial.Original(VOCAB, window=9, d_model=16, n_layers=1, n_heads=2)
    assert evaluation.moved_by_the_last(tutorials, windows, VOCAB) > 0.5


def test_nothing_in_the_original_but_its_norm_reads_the_future(monkeypatch):
    monkeypatch.setattr(tutorial.SequenceNorm, "forward", lambda norm, x: x * norm.weight[: x.shape[1]])
    torch.manual_seed(0)
    tutorials = tutorial.Original(VOCAB, window=9, d_model=16, n_layers=2, n_heads=2)
    assert evaluation.moved_by_the_last(tutorials, _windows(), VOCAB) == 0


def test_dropout_stays_on_in_the_originals_evaluation_until_it_is_taken_off():
    torch.manual_seed(0)
    model, windows = tutorial.Original(VOCAB, window=8, d_model=16, n_layers=1, n_heads=2), _windows()
    assert evaluation.parallel_loss(model, windows) != evaluation.parallel_loss(model, windows)
    with tutorial.dropping_only_in_training(model):
        assert evaluation.parallel_loss(model, windows) == evaluation.parallel_loss(model, windows)
    assert evaluation.parallel_loss(model, windows) != evaluation.parallel_loss(model, windows)


def test_the_loss_of_the_last_position_is_that_of_one_pass_and_of_its_prefix():
    model, windows = build(SMALL, RUNGS[-1], VOCAB, load("fused"), seed=0), _windows()
    with torch.no_grad():
        by_hand = evaluation.token_losses(model(windows[:, :-1]), windows[:, 1:])[:, -1].mean()
    assert evaluation.last_loss(model, windows) == pytest.approx(by_hand.item(), abs=evaluation.ROUNDING)


@pytest.mark.usefixtures("small_original")
def test_reading_the_originals_losses_does_not_change_how_it_trains(prepared):
    splits, vocab = prepared.splits, prepared.tokenizer.vocab
    unread, read = (tutorial.train(splits[0], splits[1], vocab, 3, at, 0, lambda: None).model for at in ((), (1, 2)))
    for (name, a), b in zip(unread.named_parameters(), read.parameters(), strict=True):
        assert_identical(a.detach(), b.detach(), name)


def test_the_map_of_a_masked_rung_is_empty_above_the_diagonal_and_sums_to_one(prepared):
    of = climb(TEN, RUNGS[4], 0, prepared, lambda: None)
    weights = attention_weights(of, TEN, prepared, prepared.splits[1][None, :8])
    assert weights.triu(1).count_nonzero() == 0
    assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), "the sums", tolerance(torch.float32))
