"""Training by hand: every gradient from the layers of the chapter `gradients`, and autograd off throughout."""

import copy
import itertools
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from llama import implementation
from llama.implementation import Implementation, map_leaves
from llama.ladder.one_block import OneBlock, Parts
from llama.layers import CHAPTERS
from llama.model.config import LlamaConfig
from llama.model.llama import Llama
from llama.text.tokenizer import CharTokenizer
from llama.text.windows import Windows
from llama.training.options import Train
from llama.training.preparation import prepare
from llama.training.trainer import Trainer
from tests.cases import target
from tests.cases.calls import arguments
from tests.cases.case import Case
from tests.cases.sizes import small
from tests.integration.training.small_runs import TEXT, small_run
from tests.judge.assertions import assert_close
from tests.judge.tolerances import LOSS, tolerance

OPTIONS = Train(batch_size=4, window=8, steps=50, warmup_steps=5, muon_lr=0.0, dtype="float32")
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


def _trainer(name: str | Implementation, **options) -> Trainer:
    tokenizer = CharTokenizer.from_text(TEXT)
    torch.manual_seed(0)
    model = Llama(LlamaConfig(vocab_size=tokenizer.vocab, **SMALL), name).to(target.DEVICE)
    ids = tokenizer.encode(TEXT).to(target.DEVICE)
    return Trainer(Train(**vars(OPTIONS) | options), model, Windows(ids, OPTIONS.window))


@pytest.mark.parametrize("name", ["vectorized", "fused"])
@pytest.mark.parametrize("muon_lr", [0.0, 0.02], ids=["AdamW", "Muon"])
def test_fifty_steps_have_the_losses_of_autograd(name, muon_lr):
    by_hand, by_autograd = (_trainer(name, by_hand=hand, muon_lr=muon_lr) for hand in (True, False))
    first = by_hand.step(0)
    assert first.loss == pytest.approx(by_autograd.step(0).loss, abs=LOSS)
    for number in range(1, OPTIONS.steps):
        actual, expected = by_hand.step(number), by_autograd.step(number)
        assert actual.loss == pytest.approx(expected.loss, abs=LOSS)
        assert actual.norm == pytest.approx(expected.norm, abs=LOSS)
    assert actual.loss < first.loss


@pytest.mark.parametrize("name", ["naive", "vectorized", "fused"])
def test_grad_mode_is_off_in_every_layer_of_every_step(name):
    seen = set()

    def watched(layer, function):
        def watch(*args, **kwargs):
            seen.add((layer, torch.is_grad_enabled()))
            return function(*args, **kwargs)

        return watch

    layers = implementation.load(name).changed(watched)
    trainer = _trainer("vectorized", by_hand=True)
    trainer.model.layers = trainer.model._within = trainer.optimizer.layers = layers
    trainer.step(0)
    assert {"llama_backward", "attention_backward", "clip_grad_norm"} <= {layer for layer, _ in seen}
    assert not any(enabled for _, enabled in seen)


class _WithoutAutograd(TorchFunctionMode):
    """Fails where torch is called with grad mode on, or autograd is asked for a gradient."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        assert not torch.is_grad_enabled(), function
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("of", CHAPTERS["gradients"])
@pytest.mark.parametrize("name", ["vectorized", "fused"])
def test_no_gradient_by_hand_uses_autograd(monkeypatch, name, of):
    def refused(*_, **__):
        raise AssertionError("autograd was asked for a gradient")

    for function in ("grad", "backward"):
        monkeypatch.setattr(torch.autograd, function, refused)
    for function in ("vjp", "grad"):
        monkeypatch.setattr(torch.func, function, refused)
    for seed in range(2):
        args, kwargs = arguments(of, Case(small(of), torch.float32, seed))
        with torch.no_grad(), _WithoutAutograd():
            getattr(implementation.load(name), of)(*args, **kwargs)


@pytest.mark.parametrize("tied", [False, True])
def test_a_tiny_model_trains_whole_in_the_naive_loops(tied):
    """Loss, every gradient, clipping and AdamW for three steps, beside torch's in float64."""
    sizes = {"hidden_size": 8, "intermediate_size": 7, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = LlamaConfig(vocab_size=5, num_hidden_layers=2, tie_word_embeddings=tied, **sizes)
    torch.manual_seed(0)
    theirs = Llama(config, "vectorized").double()
    weights = {name: p.detach().clone() for name, p in theirs.named_parameters()}
    zeros = {name: torch.zeros_like(w) for name, w in weights.items()}
    averages = {name: (zeros[name], zeros[name]) for name in weights}
    layers, lr, max_norm = implementation.load("naive"), 0.05, 0.5
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    exact = tolerance(torch.float64)
    for step in itertools.count(1):
        token_ids, targets = torch.randint(5, (2, 2, 4))
        loss, gradients = layers.llama_backward(token_ids, targets, weights, config)
        expected = torch.nn.functional.cross_entropy(theirs(token_ids).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        expected.backward()
        assert_close(loss, expected.detach(), within=exact)
        for name, parameter in theirs.named_parameters():
            assert_close(gradients[name], parameter.grad, within=exact, name=f"the gradient of {name}")
        norm = torch.nn.utils.get_total_norm([p.grad for p in theirs.parameters()])
        for parameter in theirs.parameters():  # torch's own clipping adds 1e-6 to the norm
            parameter.grad *= max_norm / norm
        clipped, own_norm = layers.clip_grad_norm(list(gradients.values()), max_norm)
        assert float(own_norm) == pytest.approx(float(norm), rel=exact)
        for name, gradient in zip(gradients, clipped, strict=True):
            weights[name], *averages[name] = layers.adamw(weights[name], gradient, *averages[name], step, lr)
        optimizer.step()
        if step == 3:
            break
    assert norm > max_norm  # so that clipping was seen
    for name, parameter in theirs.named_parameters():
        assert_close(weights[name], parameter.detach(), within=exact, name=f"{name} after three steps")


def test_a_batch_in_parts_has_the_loss_and_the_gradients_of_the_whole(monkeypatch):
    seen = []
    for accumulate in (1, 2, 4):
        trainer = _trainer("fused", by_hand=True, accumulate=accumulate)
        monkeypatch.setattr(trainer.optimizer, "step", lambda *_: 0.0)
        loss = trainer.step(0).loss
        seen.append((loss, {name: p.grad for name, p in trainer.model.named_parameters()}))
    for loss, gradients in seen[1:]:
        assert_close(torch.tensor(loss), torch.tensor(seen[0][0]))
        for name, gradient in gradients.items():
            assert_close(gradient, seen[0][1][name], name)


def test_layers_of_another_are_used_and_what_they_lack_is_ours():
    """A model of layers whose gradients are twice as large learns with a norm that is twice as large."""
    ours = implementation.load("vectorized")

    def twice(*args):
        return 2 * ours.cross_entropy_backward(*args)

    other = Implementation("another", {"cross_entropy_backward": twice})
    of_other, of_ours = (_trainer(layers, by_hand=True).step(0).norm for layers in (other.completed(), ours))
    assert of_other == pytest.approx(2 * of_ours, rel=tolerance(torch.float32))


def test_naive_layers_train_by_hand(tmp_path):
    config = replace(small_run(tmp_path, impl="naive", by_hand=True), dropout=0.0)
    assert prepare(config).layers.name == "naive"


def test_a_model_that_is_no_llama_is_refused():
    config = LlamaConfig(vocab_size=5, **SMALL | {"num_hidden_layers": 1})
    model = OneBlock(Parts(), config, implementation.load("fused"))
    with pytest.raises(ValueError, match="train: only a Llama has its gradients by hand, got OneBlock"):
        Trainer(Train(by_hand=True), model, Windows(torch.arange(20) % 5, 8))


class _Products(TorchDispatchMode):
    """Counts products of matrices, and attention's kernels."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[function._schema.name.removeprefix("aten::")] += 1
        return function(*args, **(kwargs or {}))


def test_nothing_that_the_forward_pass_has_computed_is_computed_again():
    config = LlamaConfig(vocab_size=5, **SMALL)
    torch.manual_seed(0)
    model = Llama(config, "fused")
    token_ids, targets = torch.randint(5, (2, 2, 4))
    with _Products() as forward, torch.no_grad():
        model(token_ids)
    with _Products() as both:
        model.gradients(token_ids, targets)
    kernel = "_scaled_dot_product_flash_attention_for_cpu"
    assert forward.counts["mm"] == 7 * config.num_hidden_layers + 1
    assert both.counts["mm"] == 3 * forward.counts["mm"]
    assert both.counts[kernel] == both.counts[f"{kernel}_backward"] == config.num_hidden_layers


@pytest.mark.parametrize("name", ["attention", "self_attention", "swiglu", "decoder_layer"])
@pytest.mark.parametrize("of", ["layer", "gradient"])
def test_what_is_kept_for_a_gradient_is_kept_by_our_own_layers_alone(name, of):
    """The forward pass is that of the layers that are given; a gradient of another gets what is in its contract."""
    ours, given = implementation.load("fused"), []

    def twice(*args, **kwargs):
        given.append(kwargs)
        return map_leaves(lambda leaf: 2 * leaf, getattr(ours, replaced)(*args, **kwargs))

    replaced = name if of == "layer" else f"{name}_backward"
    layers = Implementation("another", {replaced: twice}).completed("fused")
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=5, **SMALL)
    weights = dict(Llama(config, ours).state_dict())
    token_ids, targets = torch.randint(5, (2, 2, 4))
    loss, _ = layers.llama_backward(token_ids, targets, weights, config)
    assert given, "the other's was not asked"
    assert not any("kept" in kwargs for kwargs in given)
    assert_close(loss, layers.cross_entropy(layers.llama(token_ids, weights, config), targets))


def test_a_parameter_is_moved_by_the_gradient_that_llama_backward_gives():
    trainer = _trainer("fused", by_hand=True)
    before = copy.deepcopy(trainer.model)
    inputs, targets = trainer.windows.batch(OPTIONS.batch_size, OPTIONS.seed, 0)
    loss, gradients = before.gradients(inputs, targets)
    assert trainer.step(0).loss == loss.item()
    # AdamW's first step is against the sign of the gradient.
    for (name, new), old in zip(trainer.model.named_parameters(), before.parameters(), strict=True):
        moved, large = (new - old).detach(), gradients[name].abs() > gradients[name].abs().max() / 10
        assert torch.equal(moved[large].sign(), -gradients[name][large].sign()), name
