"""The zoo of bugs, whose every inmate is killed by `pytest --zoo`."""

import contextlib
import inspect

import pytest
import torch

from llama import implementation
from llama.implementation import map_leaves, tensors
from llama.layers import INTERNAL, LAYERS
from tests import zoo
from tests.judge.results import same


def test_every_layer_has_at_least_three_bugs_and_there_are_eighty_and_more():
    counts = {layer: len(zoo.bugs(layer)) for layer in LAYERS}
    assert min(counts.values()) >= 3
    assert min(counts["rope"], counts["attention"]) >= 10
    assert sum(counts.values()) >= 80


@pytest.mark.parametrize("name", LAYERS)
def test_each_bug_says_what_is_wrong_and_why_it_is_tempting_and_can_be_called_as_the_layer(name):
    right = inspect.signature(getattr(implementation.load("vectorized"), name)).parameters
    right = [p.name for p in right.values() if p.name not in INTERNAL]
    for bug in zoo.bugs(name):
        assert bug.clause[0].islower() or bug.clause.split()[0].isupper() or not bug.clause[0].isalpha(), bug.name
        assert bug.clause.endswith("."), bug.name
        assert "Tempting: " in inspect.getdoc(bug.function), bug.name
        assert list(inspect.signature(bug.function).parameters) == right, bug.name


@pytest.mark.parametrize("name", LAYERS)
def test_a_bug_that_writes_over_what_it_is_given_changes_no_probe_for_the_next(name):
    right, given = getattr(implementation.load("vectorized"), name), []

    def writing_over(*args, **kwargs):
        found = tensors((args, kwargs))
        given[-1].append([t.detach().clone() for t in found])
        result = map_leaves(
            lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, right(*args, **kwargs)
        )
        with torch.no_grad():
            for t in found:
                t.detach().zero_()
        return result

    for number, probe in enumerate(zoo.probes(name)):
        for _ in range(2):
            given.append([])
            if callable(probe):
                with contextlib.suppress(Exception):  # of what a probe does with what was written over
                    probe(writing_over)
        first, second = (tensors(calls) for calls in given[-2:])
        assert all(map(same, first, second)), f"probe {number} has lost its arguments"


@pytest.mark.suite({}, "-q", "--zoo", "-x", "-k", "silu")
def test_the_suite_is_red_on_a_bug_and_says_which_test_killed_it(run):
    assert run.returncode == 0, run.stdout
    bugs = zoo.bugs("silu")
    assert f"{len(bugs)} bugs, {len(bugs)} killed" in run.stdout
    assert all(f"  {bug.name}: " in run.stdout for bug in bugs)
