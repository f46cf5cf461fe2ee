"""Training: does a model learn what can be learned, and nothing that cannot?

The entropy test: text drawn from a known Markov chain has a known entropy rate. No honest model scores
below it, and a working Llama gets close. One that goes below reads the future.

The prefix test: the loss of one parallel pass must equal the loss where each position is computed from its
own prefix alone. Where it is lower, the model reads the future.
"""

import math
import string
from itertools import pairwise

import numpy as np
import pytest
import torch

from llama.ladder.one_block import looking_ahead
from llama.machine.device import multiplies_bfloat16
from llama.model.config import LlamaConfig
from llama.model.llama import Llama
from llama.text.byte_pairs import BytePairTokenizer
from llama.text.windows import Windows
from llama.training import evaluation, preparation
from llama.training.optimizer import Optimizer
from llama.training.options import Train, compute_dtype
from llama.training.trainer import Dropout, Trainer, next_token_loss
from tests.cases import target
from tests.judge.assertions import assert_close
from tests.judge.tolerances import LOSS

STATES, ORDER = 6, 2


def _chain(seed=0):
    """Transition probabilities [6 6 6]: the next state given the two before it, far from uniform."""
    weights = np.random.default_rng(seed).exponential(size=(STATES,) * (ORDER + 1)) ** 2
    return weights / weights.sum(axis=-1, keepdims=True)


def _draw(chain, n, seed):
    u = np.random.default_rng(seed).random(n)
    cumulative, text = chain.cumsum(axis=-1), [0, 0]
    for number in u:
        row = cumulative[text[-2], text[-1]]
        text.append(int(min(np.searchsorted(row, number, side="right"), STATES - 1)))
    return torch.tensor(text[2:])


def _entropy_rate(chain):
    """The mean entropy of a row, each pair of states weighted by how often it occurs."""
    pairs = np.full((STATES, STATES), 1 / STATES**2)
    for _ in range(500):
        pairs = np.einsum("ab,abc->bc", pairs, chain)
    return float(-(pairs[..., None] * chain * np.log(chain)).sum())


def _fit(model, windows, steps, batch=32, lr=1e-2):
    optimizer = Optimizer(model, weight_decay=0.0)
    for step in range(steps):
        loss = next_token_loss(model, *windows(batch, step))
        loss.backward()
        # A straight decay to zero settles the last steps.
        optimizer.step(lr * (1 - step / steps))
    return loss.item()


def _model(implementation, vocab, layers=2):
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,
    )
    return Llama(shape, implementation).to(target.DEVICE)


def _trained_on_the_chain(implementation, chain, steps):
    windows = Windows(_draw(chain, 40_000, seed=1).to(target.DEVICE), 16)
    model = _model(implementation, STATES)
    _fit(model, lambda batch, step: windows.batch(batch, 0, step), steps)
    return model


def _surplus(model, chain):
    """By how much the model's loss on new text exceeds that of the chain itself, and its standard error."""
    text = _draw(chain, 20_000, seed=2)
    rows = text[: len(text) // 17 * 17].view(-1, 17)
    with torch.no_grad():
        losses = evaluation.token_losses(model(rows[:, :-1].to(target.DEVICE)), rows[:, 1:].to(target.DEVICE))
    # From the third position on, where both states that decide are in sight.
    before, last, following = rows[:, 1:-2], rows[:, 2:-1], rows[:, 3:]
    best = -torch.from_numpy(np.log(chain))[before, last, following]
    surplus = losses.cpu().double()[:, 2:] - best
    return surplus.mean().item(), (surplus.std() / math.sqrt(surplus.numel())).item()


@pytest.mark.tensors
def test_the_loss_comes_within_three_percent_of_the_entropy_and_not_below_it(implementation):
    chain = _chain()
    surplus, error = _surplus(_trained_on_the_chain(implementation, chain, steps=200), chain)
    assert -4 * error <= surplus <= 0.03 * _entropy_rate(chain)


@pytest.mark.tensors
def test_a_model_that_reads_the_future_falls_below_the_entropy(implementation):
    chain = _chain()
    surplus, error = _surplus(_trained_on_the_chain(looking_ahead(implementation), chain, steps=50), chain)
    assert surplus < -4 * error


LENGTH = 32
"""States of each text that is written in tokens."""


def _texts(chain, count, seed):
    """Texts of so many states, each a letter, with the chain's own loss of each; all begin after the states 0, 0."""
    draws = [_draw(chain, LENGTH, (seed, i)).tolist() for i in range(count)]
    losses = []
    for states in draws:
        before = pairwise([0, 0, *states])
        losses.append(-sum(math.log(chain[a, b, c]) for (a, b), c in zip(before, states, strict=False)))
    texts = ["".join(string.ascii_lowercase[state] for state in states) for states in draws]
    return texts, torch.tensor(losses, dtype=torch.float64)


END = ord("\n")


def _in_tokens(tokenizer, texts):
    """The end of another text, the tokens of a text, and ends up to the length of the longest: [texts seq]."""
    rows = [tokenizer.encode(f"\n{text}\n") for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=END).to(target.DEVICE)


def _surplus_in_tokens(layers, chain, steps):
    """By how much a text in tokens costs the model more than the chain, and the standard error; nats per state.

    A token tells that it was not merged with the next, so part of a text may cost less than it costs the chain. All of
    it may not: the texts of this length are as many rows of tokens, whose probabilities add up to one at most.
    """
    texts, _ = _texts(chain, 2000, seed=1)
    tokenizer = BytePairTokenizer.train(" ".join(texts), 264)
    model, rows = _model(layers, tokenizer.vocab), _in_tokens(tokenizer, texts)

    def batch(size, step):
        of = rows[torch.arange(step * size, (step + 1) * size) % len(rows)]
        return of[:, :-1], of[:, 1:]

    _fit(model, batch, steps)
    texts, best = _texts(chain, 500, seed=2)
    rows = _in_tokens(tokenizer, texts)
    with torch.no_grad():
        logits = model(rows[:, :-1])
    of_text = rows[:, 1:] != END
    logits[..., END] = -math.inf  # where a text ends the chain does not say
    losses = evaluation.token_losses(logits, rows[:, 1:]).where(of_text, 0).cpu().double()
    surplus = (losses.sum(1) - best) / LENGTH
    return surplus.mean().item(), (surplus.std() / math.sqrt(len(surplus))).item()


@pytest.mark.tensors
def test_in_tokens_too_the_loss_comes_near_the_entropy_and_not_below_it(implementation):
    chain = _chain()
    surplus, error = _surplus_in_tokens(implementation, chain, steps=100)
    # Some of it remains: the last token of a text might have been another of which it is the beginning.
    assert -4 * error <= surplus <= 0.15 * _entropy_rate(chain)


@pytest.mark.tensors
def test_in_tokens_too_a_model_that_reads_the_future_falls_below_the_entropy(implementation):
    surplus, error = _surplus_in_tokens(looking_ahead(implementation), _chain(), steps=75)
    assert surplus < -4 * error


def _windows_of(unit):
    """Windows of 17, and the size of their vocabulary: states of the chain, or tokens of a text."""
    if unit == "states":
        return _draw(_chain(), 16 * 17, seed=3).view(16, 17).to(target.DEVICE), STATES
    texts, _ = _texts(_chain(), 20, seed=3)
    tokenizer = BytePairTokenizer.train(" ".join(texts), 264)
    return tokenizer.encode(" ".join(texts))[: 16 * 17].view(16, 17).to(target.DEVICE), tokenizer.vocab


@pytest.mark.tensors
@pytest.mark.parametrize("unit", ["states", "tokens"])
def test_the_parallel_loss_equals_the_loss_from_prefixes_alone(implementation, unit):
    windows, vocab = _windows_of(unit)
    model = _model(implementation, vocab)
    assert abs(evaluation.parallel_loss(model, windows) - evaluation.prefix_loss(model, windows)) <= LOSS


@pytest.mark.tensors
@pytest.mark.parametrize("unit", ["states", "tokens"])
def test_the_prefix_test_shows_a_model_that_reads_the_future(implementation, unit):
    windows, vocab = _windows_of(unit)
    model = _model(looking_ahead(implementation), vocab)
    assert abs(evaluation.parallel_loss(model, windows) - evaluation.prefix_loss(model, windows)) > LOSS


def test_the_prefix_loss_shows_no_model_what_it_has_to_predict():
    # This model answers with the token that follows wherever it can see one, and guesses where it cannot.
    class Peeking(torch.nn.Module):
        def forward(self, ids):
            following = torch.nn.functional.one_hot(ids[:, 1:], STATES) * 100.0
            return torch.cat((following, torch.zeros(len(ids), 1, STATES)), dim=1)

    windows = _draw(_chain(), 4 * 9, seed=3).view(4, 9)
    assert evaluation.prefix_loss(Peeking(), windows) == pytest.approx(math.log(STATES))
    # In parallel only the last of the eight positions has to guess.
    assert evaluation.parallel_loss(Peeking(), windows) == pytest.approx(math.log(STATES) / 8)


def test_weight_decay_shrinks_matrices_and_leaves_the_weights_of_norms():
    model = _model("fused", STATES)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    Optimizer(model, weight_decay=0.5).step(lr=0.1)
    for name, parameter in model.named_parameters():
        assert_close(parameter, before[name] * (1.0 if parameter.ndim == 1 else 0.95))


def test_dropout_drops_its_part_and_keeps_the_mean():
    ones = torch.ones(100, 1000)
    dropped = Dropout(0.25, 0, 0, ones.shape)(ones)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    error = math.sqrt(0.25 * 0.75 / ones.numel())  # the standard error of the part that is kept
    assert abs((dropped > 0).double().mean().item() - 0.75) < 4 * error


def test_what_is_dropped_follows_from_the_seed_and_the_step():
    x = torch.ones(5, 7)
    drawn = [Dropout(0.5, seed, step, x.shape)(x) for seed, step in [(0, 0), (0, 0), (0, 1), (1, 0)]]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])


def _trainer(**more):
    config = Train(**{"window": 8, "batch_size": 2} | more)
    return Trainer(config, _model("fused", STATES).train(), Windows(_draw(_chain(), 100, seed=1), 8))


def test_both_rates_follow_the_schedule(monkeypatch):
    trainer, rates = _trainer(steps=10, warmup_steps=5, peak_lr=0.5, min_lr=0.0, muon_lr=0.25), []
    monkeypatch.setattr(trainer.optimizer, "step", lambda *given: rates.append(given) or 0.0)
    for number in (0, 4, 9):
        trainer.step(number)
    assert [muon / lr for lr, muon in rates] == pytest.approx([0.5] * 3)
    assert [lr for lr, _ in rates[:2]] == pytest.approx([0.1, 0.5])
    assert rates[2][0] < 0.1


def test_a_step_drops_where_it_is_asked_to():
    assert _trainer(dropout=0.5).step(0).loss != _trainer().step(0).loss == _trainer().step(0).loss


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("parts", [2, 3, 6])
def test_a_batch_in_parts_has_the_loss_and_the_gradient_of_the_whole(monkeypatch, parts, dropout):
    seen = []
    for accumulate in (1, parts):
        trainer = _trainer(batch_size=6, accumulate=accumulate, dropout=dropout)
        monkeypatch.setattr(trainer.optimizer, "step", lambda *_: 0.0)
        loss = trainer.step(3).loss
        seen.append((loss, {name: p.grad for name, p in trainer.model.named_parameters()}))
    (loss, whole), (in_parts, gradients) = seen
    # The same sums in another order: float32's own tolerance, which has room for some fifty roundings.
    assert_close(in_parts, torch.tensor(loss))
    for name, gradient in gradients.items():
        assert_close(gradient, whole[name], name)


def test_what_is_dropped_from_a_part_is_what_is_dropped_there_from_the_whole():
    x = torch.ones(6, 5, 7)
    whole = Dropout(0.5, 0, 0, (6, 5, 7), calls=2)
    parts = [Dropout(0.5, 0, 0, (2, 5, 7), 2, place, 3) for place in range(3)]
    first, second = [(torch.cat([part(x[:2]) for part in parts]), whole(x)) for _ in range(2)]
    assert torch.equal(*first)
    assert torch.equal(*second)
    assert not torch.equal(first[0], second[0])


@pytest.mark.tensors
def test_a_single_batch_is_learned_by_heart(implementation):
    model = _model(implementation, 16)
    ids = torch.from_numpy(np.random.default_rng(0).integers(16, size=(4, 13))).to(target.DEVICE)
    ids[:, 0] = torch.arange(4)  # the first tokens tell the rows apart
    assert _fit(model, lambda batch, step: (ids[:, :-1], ids[:, 1:]), steps=150) < 0.01


def test_the_loss_of_a_split_counts_every_token_but_the_first_once():
    # The last window is shorter; a model that is always uniform costs ln(vocab) for each token.
    class Uniform(torch.nn.Module):
        def forward(self, ids):
            self.seen = getattr(self, "seen", 0) + ids.numel()
            return torch.zeros(*ids.shape, 7)

    model = Uniform()
    assert evaluation.loss(model, torch.arange(24) % 7, window=5, batch=2) == pytest.approx(math.log(7))
    assert model.seen == 23


def test_parallel_and_split_loss_agree():
    model, ids = _model("fused", STATES), _draw(_chain(), 33, seed=4)
    rows = ids.unfold(0, 17, 16)
    assert abs(evaluation.loss(model, ids, window=16) - evaluation.parallel_loss(model, rows)) <= LOSS


@pytest.mark.parametrize(
    ("dtype", "multiplies", "computed_in"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, None),
        ("bfloat16", False, torch.bfloat16),
        ("float32", True, None),
    ],
)
def test_auto_is_bfloat16_only_where_the_device_multiplies_it(monkeypatch, dtype, multiplies, computed_in):
    monkeypatch.setattr("llama.training.options.multiplies_bfloat16", lambda device: multiplies)
    assert compute_dtype(Train(dtype=dtype)) is computed_in
    if dtype == "auto":
        assert compute_dtype(Train(dtype=dtype, by_hand=True)) is None


@pytest.mark.parametrize(("window", "batch"), [(0, 64), (-1, 64), (8, 0)])
def test_a_loss_over_windows_or_batches_of_nothing_is_refused(window, batch):
    with pytest.raises(ValueError, match=f"loss: window and batch must be at least 1, got {window} and {batch}"):
        evaluation.loss(torch.nn.Identity(), torch.arange(24), window=window, batch=batch)


def test_a_device_of_which_nothing_is_known_does_not_multiply_bfloat16(monkeypatch):
    assert not multiplies_bfloat16(torch.device("mps"))
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    assert not multiplies_bfloat16(torch.device("cpu"))


def test_the_memory_that_is_foreseen_is_that_of_one_part_of_the_batch(monkeypatch):
    foreseen = []
    monkeypatch.setattr("llama.training.preparation.check_memory", lambda what, needed: foreseen.append(needed))
    for accumulate in (1, 4):
        preparation._check_memory(Train(accumulate=accumulate), 65)
    assert foreseen[1] < foreseen[0]
