"""A model that torch.compile has made one program of computes the same, and is made only once.

The program is run operation by operation here, which needs no C++ compiler: what is looked at is what goes into it.
"""

import importlib.util

import pytest
import torch

from llama.generation.stream import generate
from llama.layers.model import rope
from llama.machine.device import check_compiler
from llama.model.config import LlamaConfig
from llama.model.kv_cache import KVCache
from llama.model.llama import Llama
from llama.text.windows import Windows
from llama.training import preparation
from llama.training.evaluation import loss
from llama.training.options import Train
from llama.training.trainer import Trainer
from tests.judge.assertions import assert_close
from tests.judge.subject import unchecked

VOCAB, WINDOW = 11, 8


# The compiler does what torch warns of, and hides that with filters of its own; where warnings are errors it fails.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def compiling():
    """Nothing is compiled before or after, and types are not enforced, since a compiler cannot look through that."""
    torch.compiler.reset()
    with unchecked():
        yield
    torch.compiler.reset()


def _ids():
    return torch.randint(VOCAB, (100,), generator=torch.Generator().manual_seed(1))


def _trainer(dtype="float32", **more):
    shape = LlamaConfig(VOCAB, 32, 64, 2, 4, 2, initializer_range=0.1)
    model = Llama(shape).train()
    model.reset_parameters(torch.Generator().manual_seed(0))
    model.compute_dtype = None if dtype == "float32" else torch.bfloat16
    # 4 windows of 4 heads: as many as attention has a gradient of its own for.
    config = Train(window=WINDOW, batch_size=4, dtype=dtype, **more)
    return Trainer(config, model, Windows(_ids(), WINDOW))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loss_and_gradients_are_those_of_the_model_as_it_is(monkeypatch, dtype, dropout):
    seen = []
    for compiled in (True, False):
        trainer = _trainer(dtype, dropout=dropout)
        if compiled:
            trainer.model.compile_training(backend="aot_eager")
        monkeypatch.setattr(trainer.optimizer, "step", lambda *_: 0.0)
        mean = trainer.step(0).loss
        seen.append((mean, {name: p.grad for name, p in trainer.model.named_parameters()}))
    (compiled_loss, compiled_gradients), (plain_loss, gradients) = seen
    like = torch.bfloat16 if dtype == "bfloat16" else torch.float32  # each rounds what lies between at other places
    assert_close(torch.tensor(compiled_loss).to(like), torch.tensor(plain_loss).to(like))
    for name, gradient in gradients.items():
        assert_close(compiled_gradients[name].to(like), gradient.to(like), name)


def test_it_is_compiled_once_for_all_steps_and_not_at_all_for_anything_else():
    trainer, programs = _trainer(dropout=0.3), []

    def compiler(graph, inputs):
        programs.append(graph)
        return graph.forward

    trainer.model.compile_training(backend=compiler)
    trainer.step(0)
    assert len(programs) == 2  # before the embedding, which is not in it, and behind
    trainer.step(1)
    loss(trainer.model, _ids(), WINDOW)
    generate(trainer.model, _ids()[None, :5], 3)
    trainer.model.dropout = None
    trainer.model(_ids()[None, :5], KVCache(trainer.model.config, 1))
    trainer.step(2)
    assert len(programs) == 2


def test_an_id_outside_the_vocabulary_is_found_before_the_program():
    model = _trainer().model
    model.compile_training(backend="eager")
    with pytest.raises(IndexError, match=r"must lie in 0\.\.10, got -1"):
        model(torch.tensor([[3, -1]]))


def test_where_nothing_can_be_compiled_one_sentence_says_so(monkeypatch):
    def fail(function):
        raise RuntimeError("no compiler found\n\nand advice of many lines")

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(ValueError, match=r"^compile: torch.compile does not work here \(no compiler found\)$"):
        check_compiler(torch.device("cpu"))


@pytest.mark.parametrize("compiled", [True, False])
def test_a_run_is_compiled_where_it_is_asked_to_be_and_only_where_that_works(monkeypatch, compiled):
    config, asked = Train(corpus="grammar", compile=compiled), []
    monkeypatch.setattr(preparation, "check_compiler", asked.append)
    monkeypatch.setattr(Llama, "compile_training", lambda model: asked.append(model))
    prepared = preparation.prepare(config)
    model = preparation.build(config, prepared)
    assert asked == ([prepared.device, model] if compiled else [])


def test_a_copy_of_rope_has_an_operator_of_its_own():
    # torch takes the name of an operator away from the first that has it, and a call of that one may end the process.
    spec = importlib.util.spec_from_file_location("my_llama.rope", rope.__file__)
    copied = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copied)
    assert copied._cos_sin_once._qualname != rope._cos_sin_once._qualname
