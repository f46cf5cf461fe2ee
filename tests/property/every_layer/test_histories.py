"""Nothing is remembered that could make a later call wrong: any sequence of calls, changes and looks at old results.

Hypothesis searches for the shortest sequence after which a result is wrong. Kernels go wrong here: they keep what they
computed for an object, though its contents have changed; for a shape, though its dtype is another; they write each
result into the same buffer; the first call decides for all later ones.
"""

import itertools
import threading
from contextlib import nullcontext

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from llama.implementation import map_leaves, tensors
from tests.cases import target
from tests.cases.calls import SAME_FLAGS, arguments, calls_of
from tests.cases.case import Case, any_dtype
from tests.cases.sizes import small
from tests.judge.assertions import assert_equals_formula
from tests.judge.gradients import compare_gradients, differentiable, upstream, vjp
from tests.judge.subject import Mismatch, word

NO_GRAD = " under no_grad"
MODES = {"": nullcontext, NO_GRAD: torch.no_grad, " in inference mode": torch.inference_mode}
STEPS = 10


class History(RuleBasedStateMachine):
    """One layer, and for each dtype and two sequence lengths one set of arguments that live through all steps."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.told, self.kept = layer.anew(), [], []
        self.objects, self.contents = {}, 0
        self.length = 5
        """The other length; the first is that of SMALL."""

    @initialize(seed=st.integers(0, 13))
    def begin(self, seed):
        self.seed = seed

    def _made(self, dtype, longer):
        """Arguments of that dtype with the contents that hold now."""
        sizes = small(self.layer.layer)
        if longer:
            sizes |= {axis: self.length for axis in ("seq", "q_len", "n") if axis in sizes}
        return arguments(self.layer.layer, Case(sizes, dtype, self.seed + self.contents * SAME_FLAGS))

    def _arguments(self, dtype, longer):
        key = dtype, longer
        if key not in self.objects:
            with torch.inference_mode(False):  # in which they could not be changed later
                # Clones: what is changed in place must not be seen by another argument.
                args, kwargs = map_leaves(_clone, self._made(*key))
            # As in a model, where texts of any length meet the same weights.
            others = self.objects.get((dtype, not longer), (args,))[0]
            self.objects[key] = tuple(map(_the_same_if_alike, others, args)), kwargs
        return self.objects[key]

    @rule(dtype=any_dtype(), longer=st.booleans(), mode=st.sampled_from(list(MODES)))
    def call(self, dtype, longer, mode):
        if calls_of(self.layer.layer).forward and MODES[mode] is torch.inference_mode:
            mode = NO_GRAD  # a gradient may be taken by autograd, which there is none of in inference mode
        self.told.append(f"called with {word(dtype)}{' and another length' if longer else ''}{mode}")
        with MODES[mode]():
            self._check(dtype, longer)

    @rule(dtype=any_dtype())
    def call_in_another_thread(self, dtype):
        self.told.append(f"called with {word(dtype)} in another thread")
        failed = []

        def run():
            try:
                self._check(dtype, False)
            except Exception as error:  # handed to the test below
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]

    def _check(self, dtype, longer):
        args, kwargs = self._arguments(dtype, longer)
        before = [result for _, result, _ in self.kept]
        with self._in_words():
            assert_equals_formula(self.layer, *args, look_at="what is kept between calls", **kwargs)
        result = type(self.layer).last.result
        for t in tensors(result):
            if any(t is old for results in before for old in results):
                self._fail("it returns the very tensor that an earlier call returned")
        self.kept.append((len(self.told), tensors(result), [t.detach().clone() for t in tensors(result)]))

    @rule()
    def change_the_contents(self):
        """Every argument gets other contents, in place: the objects, their memory and their sizes stay the same."""
        self.told.append("the arguments are changed in place")
        self.contents += 1
        for key, (args, kwargs) in self.objects.items():
            new_args, new_kwargs = self._made(*key)
            with torch.no_grad():
                for t, new in zip(tensors((args, kwargs)), tensors((new_args, new_kwargs)), strict=True):
                    t.copy_(new)

    @rule()
    def replace_the_tensors(self):
        """A mapping holds other tensors under the same names; it is the same mapping."""
        mappings = [a for args, _ in self.objects.values() for a in args if isinstance(a, dict)]
        if mappings:
            self.told.append("the tensors in the mapping are replaced")
            self.contents += 1
            for key, (args, _) in self.objects.items():
                for old, new in zip(args, self._made(*key)[0], strict=True):
                    if isinstance(old, dict):
                        old.update({name: new[name].clone() for name in old})

    @rule()
    def change_the_data(self):
        """As change_the_contents, through .data, which torch does not count as a change."""
        self.told.append("the arguments are changed in place through .data")
        self.contents += 1
        for key, (args, kwargs) in self.objects.items():
            for t, new in zip(tensors((args, kwargs)), tensors(self._made(*key)), strict=True):
                t.data.copy_(new)

    @rule()
    def write_over_the_results(self):
        """What a layer has returned belongs to its caller."""
        self.told.append("the results so far are written over")
        for _, results, _ in self.kept:
            for t in results:
                if not t.is_inference():
                    with torch.no_grad():
                        t.detach().fill_(77)
        self.kept.clear()

    @rule(dtype=any_dtype(), longer=st.booleans())
    def learn(self, dtype, longer=False):
        if not calls_of(self.layer.layer).gradients or not target.claims("forward"):
            return
        self.told.append(f"called with {word(dtype)}, and its gradients taken")
        args, kwargs = self._arguments(dtype, longer)
        with self._in_words():
            leaves, call = differentiable(self.layer.layer, self.layer, args, kwargs)
            out = call(*leaves)
            toward = upstream(out)
            gradients = vjp(out, leaves, toward, allow_unused=True)
            look_at = "what is kept between calls"
            compare_gradients(self.layer.layer, gradients, leaves, (args, kwargs), toward, look_at=look_at)

    @invariant()
    def earlier_results_stay(self):
        for number, results, copies in self.kept:
            for t, copy in zip(results, copies, strict=True):
                if not torch.equal(t.isnan(), copy.isnan()) or not torch.equal(t.nan_to_num(), copy.nan_to_num()):
                    self._fail(f"the result of step {number} is another now: a later call has written to its memory")

    def _in_words(self):
        return _Words(self)

    def _fail(self, sentence):
        raise Mismatch(f"{sentence}. {self._story()}", "what is kept between calls")

    def _story(self):
        return "The steps: " + "; ".join(f"{i}. {step}" for i, step in enumerate(self.told, 1))


def _the_same_if_alike(other, new):
    """The other argument in place of the new one, where it has the same shapes."""
    shapes = [[t.shape for t in tensors(of)] for of in (other, new)]
    return other if shapes[0] == shapes[1] and shapes[0] else new


def _clone(leaf):
    return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf


class _Words:
    """Adds to what is wrong the steps that led there."""

    def __init__(self, history):
        self.history = history

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if len(self.history.told) < 2:
            return  # no history: the first call is wrong
        if isinstance(error, Mismatch):
            raise Mismatch(f"{error.sentence}. {self.history._story()}", error.look_at, error.differing) from error
        if error is not None and error is type(self.history.layer).last.error:
            self.history._fail(f"it raised {kind.__name__}: {str(error).partition(chr(10))[0]}")


@pytest.mark.tensors
def test_no_history_makes_a_later_call_wrong(layer):
    settings = hypothesis.settings(stateful_step_count=STEPS, deadline=None)
    run_state_machine_as_test(lambda: History(layer), settings=settings)


# What kernels are most often wrong after is tried in any case, and not only where the search comes upon it.
SHORT = {
    "changed in place": lambda h, dtype: (h.call(dtype, False, ""), h.change_the_contents(), h.call(dtype, False, "")),
    "changed through data": lambda h, dtype: (h.call(dtype, False, ""), h.change_the_data(), h.call(dtype, False, "")),
    "replaced in the mapping": lambda h, dtype: (
        h.call(dtype, False, ""),
        h.replace_the_tensors(),
        h.call(dtype, False, ""),
    ),
    "no_grad first": lambda h, dtype: (h.call(dtype, True, " under no_grad"), h.learn(dtype, True)),
    "inference first": lambda h, dtype: (h.call(dtype, True, " in inference mode"), h.learn(dtype, True)),
    "learnt twice": lambda h, dtype: (
        h.call(dtype, False, ""),
        h.learn(dtype),
        h.change_the_contents(),
        h.learn(dtype),
    ),
    "written over": lambda h, dtype: (h.call(dtype, False, ""), h.write_over_the_results(), h.call(dtype, False, "")),
    "another length": lambda h, dtype: (h.call(dtype, True, ""), h.call(dtype, False, ""), h.call(dtype, True, "")),
}


@pytest.mark.tensors
@pytest.mark.parametrize("steps", SHORT)
def test_a_call_is_right_after_what_is_most_often_forgotten(layer, steps):
    for dtype in target.ALL:
        for seed in (0, 1):
            history = History(layer)
            history.begin(seed)
            history.length = 6 + list(SHORT).index(steps)  # one that no other test has called the layer with
            SHORT[steps](history, dtype)
            history.earlier_results_stay()


@pytest.mark.tensors
def test_a_call_is_right_after_calls_in_other_dtypes_in_every_order(layer):
    for order in itertools.permutations(target.ALL):
        history = History(layer)
        history.begin(0)
        for dtype in order:
            history.call(dtype, False, "")
        history.earlier_results_stay()
