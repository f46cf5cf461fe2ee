"""Whose layers are tested: what `--impl NAME` finds, and what it says where there is nothing to find."""

import math
import re
from pathlib import Path

import pytest
import torch

from llama import implementation
from llama.implementation import ImplementationError, load
from llama.layers import CHAPTERS, LAYERS

ROOT = Path(__file__).parents[3]

RIGHT = """
def rms_norm(x, weight, eps=1e-5):
    wide = x.double()
    return (wide / (wide.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight.double()).to(x.dtype)
"""
# eps outside the square root.
WRONG = """
def rms_norm(x, weight, eps=1e-5):
    return x / (x.pow(2).mean(-1, keepdim=True).sqrt() + eps) * weight
"""


def test_ours_define_every_layer():
    for name in implementation.OURS:
        assert tuple(load(name).layers) == LAYERS


def test_a_file_defines_the_layers_that_it_names_and_no_others(tmp_path):
    (tmp_path / "mine.py").write_text(RIGHT)
    mine = load(tmp_path / "mine.py")
    assert list(mine.layers) == ["rms_norm"]
    assert mine.name == "mine"
    assert mine.files == {"rms_norm": str(tmp_path / "mine.py")}
    assert not hasattr(mine, "rope")


def test_a_folder_defines_the_layers_of_all_its_files_which_may_import_each_other(tmp_path):
    (tmp_path / "silu.py").write_text("def silu(x):\n    return x * x.sigmoid()\n")
    (tmp_path / "ffn.py").write_text(
        "from .silu import silu\ndef swiglu(x, w_gate, w_up, w_down):\n"
        "    return (silu(x @ w_gate.T) * (x @ w_up.T)) @ w_down.T\n"
    )
    assert list(load(tmp_path).layers) == ["silu", "swiglu"]


def test_what_a_layers_file_imports_from_torch_is_a_tool_and_no_layer(tmp_path):
    (tmp_path / "attention.py").write_text("from torch import softmax\ndef attention(q, k, v): return v\n")
    (tmp_path / "silu.py").write_text("from torch.nn.functional import silu\n")
    assert list(load(tmp_path).layers) == ["silu", "attention"]
    assert list(load(tmp_path / "attention.py").layers) == ["attention"]


def test_a_dotted_module_is_imported():
    found = load("torch.nn.functional")
    assert {"softmax", "cross_entropy", "linear", "rms_norm", "silu"} <= set(found.layers)
    assert found.linear is torch.nn.functional.linear


def test_what_an_implementation_lacks_can_be_taken_from_ours(tmp_path):
    (tmp_path / "mine.py").write_text(RIGHT)
    mine = load(tmp_path / "mine.py")
    whole = mine.completed()
    assert tuple(whole.layers) == LAYERS
    assert whole.rms_norm is mine.rms_norm
    assert whole.rope is load("vectorized").rope


@pytest.mark.parametrize("name", ["no_such_module", "no.such.module", "no_such_folder/x.py", "not a name"])
def test_an_unknown_name_is_refused_with_what_would_be_valid(name):
    with pytest.raises(ImplementationError, match="naive, vectorized, fused, a dotted module, a .py file or a folder"):
        load(name)


def test_a_file_without_layers_is_refused_with_the_names_that_there_are(tmp_path):
    (tmp_path / "mine.py").write_text("def normalise(x): return x")
    with pytest.raises(
        ImplementationError, match="defines no layer; it must define at least one of softmax, cross_entr"
    ):
        load(tmp_path / "mine.py")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import no_such_module", "mine.py, line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = (1\n", "mine.py, line 1: SyntaxError: '\\(' was never closed"),
        ("x = 1\nraise RuntimeError('no GPU')", "mine.py, line 2: RuntimeError: no GPU"),
    ],
)
def test_a_file_that_fails_to_import_is_refused_with_the_reason(tmp_path, text, sentence):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ImplementationError, match=sentence):
        load(tmp_path / "mine.py")


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("rms_norm.py", "import no_such_module", "rms_norm.py, line 1: ModuleNotFoundError: No module named"),
        ("rms_norm.py", "\ndef rms_norm(x:\n", "rms_norm.py, line 2: SyntaxError: "),
        ("norms.py", "def rms_norm(x:\n", "norms.py, line 1: SyntaxError: "),
        ("rms_norm.py", "def norm(x): return x", "rms_norm.py must define rms_norm, and defines norm"),
        ("rms_norm.py", "from helper import x", "helper.py, line 1: RuntimeError: no GPU"),
    ],
)
def test_a_file_of_a_folder_that_fails_to_import_costs_its_own_layer_and_no_other(tmp_path, file, text, sentence):
    (tmp_path / file).write_text(text)
    (tmp_path / "helper.py").write_text("raise RuntimeError('no GPU')")
    (tmp_path / "silu.py").write_text("def silu(x): return x * x.sigmoid()")
    mine = load(tmp_path)
    assert list(mine.layers) == ["rms_norm", "silu"]
    assert mine.files["rms_norm"] == str(tmp_path / file)
    assert mine.silu(torch.zeros(1)).item() == 0
    with pytest.raises(ImplementationError, match=sentence):
        mine.rms_norm(torch.ones(2))
    with pytest.raises(ImplementationError, match=sentence):
        mine.completed()


RMS_NORM = (
    "class RMSNorm(nn.Module):\n    def __init__(self, n, eps=1e-5): super().__init__(); self.w = nn.Parameter(x)\n"
)
ADAPTED = "from llama import adapt\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (RMS_NORM, f"RMSNorm would be one with:\n{ADAPTED}rms_norm = adapt.module(RMSNorm)"),
        ("from torch.nn import RMSNorm", f"RMSNorm would be one with:\n{ADAPTED}rms_norm = adapt.module(RMSNorm)"),
        ("class LlamaMLP(nn.Module): ...", f"LlamaMLP would be one with:\n{ADAPTED}swiglu = adapt.module(LlamaMLP)"),
        ("norm = nn.RMSNorm(8)", f"norm would be one with:\n{ADAPTED}rms_norm = adapt.module(RMSNorm)"),
        (
            "def apply_rotary_pos_emb(q, k, cos, sin): ...",
            f"with:\n{ADAPTED}rope = adapt.apply_rotary_pos_emb(apply_rotary_pos_emb)",
        ),
        ("def rotate(x, cos, sin): ...", f"with:\n{ADAPTED}rope = adapt.cos_sin(rotate)"),
        ("def flash(q, k, v, is_causal): ...", f"with:\n{ADAPTED}attention = adapt.sdpa(flash)"),
        ("def rmsnorm(x, weight, eps): ...", "rmsnorm would be one with:\nrms_norm = rmsnorm"),
        (
            "class Norm(nn.RMSNorm): ...\nclass MyRMSNorm(nn.RMSNorm): ...\nclass MLP(nn.Module): ...",
            "MyRMSNorm, MLP would be layers with:\n"
            f"{ADAPTED}rms_norm = adapt.module(MyRMSNorm)\nswiglu = adapt.module(MLP)",
        ),
    ],
)
def test_a_file_without_a_layer_that_has_something_like_one_is_told_the_line_that_makes_it_one(
    tmp_path, text, sentence
):
    (tmp_path / "mine.py").write_text("from torch import nn\n" + text)
    with pytest.raises(ImplementationError) as error:
        load(tmp_path / "mine.py")
    assert str(error.value).startswith(f"{tmp_path / 'mine.py'} defines no layer. ")
    assert str(error.value).endswith(sentence)


INLINE = "from llama import adapt; "
NO_FUNCTION = "and must be a function as its contract says"


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        (
            "rms_norm = nn.RMSNorm(8)",
            "rms_norm is an instance of RMSNorm, which has weights of its own",
            f"{INLINE}rms_norm = adapt.module(RMSNorm)",
        ),
        ("rms_norm = nn.RMSNorm", "rms_norm is a class", f"{INLINE}rms_norm = adapt.module(rms_norm)"),
        ("class swiglu(nn.Module): ...", "swiglu is a class", f"{INLINE}swiglu = adapt.module(swiglu)"),
        ("class silu(autograd.Function): ...", "silu is a class", "silu = silu.apply"),
        ("def rope(x, cos, sin): ...", "rope is called with x, cos, sin", f"{INLINE}rope = adapt.cos_sin(rope)"),
        ("class softmax: ...", "softmax is a class", ""),
    ],
)
def test_what_has_the_name_of_a_layer_and_is_none_raises_what_to_write(tmp_path, text, what, line):
    (tmp_path / "mine.py").write_text(f"from torch import autograd, nn\n{text}\n")
    (layer,) = load(tmp_path / "mine.py").layers.values()
    with pytest.raises(ImplementationError) as error:
        layer(torch.ones(1))
    assert str(error.value) == f"mine.py: {what}, {NO_FUNCTION}" + (f". Write: {line}" if line else "")


@pytest.mark.parametrize("text", ["silu = nn.SiLU()", "silu = functools.partial(nn.functional.silu, inplace=False)"])
def test_a_module_without_weights_and_a_partial_function_are_layers(tmp_path, text):
    (tmp_path / "mine.py").write_text(f"import functools\nfrom torch import nn\n{text}\n")
    assert load(tmp_path / "mine.py").silu(torch.zeros(1)).item() == 0


def test_an_adapted_layer_stands_in_the_file_that_names_it(tmp_path):
    (tmp_path / "mine.py").write_text(f"from torch.nn import RMSNorm\n{ADAPTED}rms_norm = adapt.module(RMSNorm)\n")
    assert load(tmp_path / "mine.py").files == {"rms_norm": str(tmp_path / "mine.py")}


def test_a_file_without_a_layer_that_fails_to_import_is_left_out_with_the_reason(tmp_path):
    (tmp_path / "scratch.py").write_text("1 / 0")
    (tmp_path / "silu.py").write_text("def silu(x): return x * x.sigmoid()")
    mine = load(tmp_path)
    assert list(mine.layers) == ["silu"]
    assert mine.left_out == ["scratch.py, line 1: ZeroDivisionError: division by zero"]


@pytest.mark.suite(
    {"mine/swiglu.py": "\n\ndef swiglu(x:\n", "mine/rms_norm.py": RIGHT, "other/rms_norm.py": "import nothing_there"},
    *("--impl", "{folder}/mine", "--impl", "{folder}/other", "tests/unit"),
)
def test_a_file_that_fails_to_import_is_one_failure_with_its_line_and_all_others_run(run):
    assert "2 failed" in run.stdout, run.stdout
    assert "swiglu              failing   1 of " in run.stdout
    assert "swiglu.py, line 3: SyntaxError: '(' was never closed" in run.stdout
    assert "rms_norm.py, line 1: ModuleNotFoundError: No module named 'nothing_there'" in run.stdout
    assert re.search(r"rms_norm +not run", run.stdout)  # only a part of its tests ran, and none failed


SILU = "def silu(x):\n    return x * x.sigmoid()\n"
SHARED = {
    "from the beginning": "from shared import factor\ndef silu(x): return factor * x\n",
    "when it is called": "def silu(x):\n    from shared import factor\n    return factor * x\n",
    "as a module": "import shared\ndef silu(x): return shared.factor * x\n",
    "by another name": "import shared as s\ndef silu(x): return s.factor * x\n",
    "from a folder": "import deep.inner\ndef silu(x): return deep.inner.factor * x\n",
    "through another": "from between import factor\ndef silu(x): return factor * x\n",
}


@pytest.mark.parametrize("how", SHARED)
@pytest.mark.parametrize("of", ["a file", "a folder"])
def test_a_file_imports_what_lies_beside_it_and_not_its_namesake_of_another_folder(tmp_path, how, of):
    layers = []
    for factor in (2, 3):
        folder = tmp_path / str(factor)
        (folder / "deep").mkdir(parents=True)
        (folder / "shared.py").write_text(f"factor = {factor}\n")
        (folder / "between.py").write_text("from shared import factor\n")
        (folder / "deep" / "__init__.py").write_text("")
        (folder / "deep" / "inner.py").write_text("from shared import factor\n")
        (folder / "kernels.py").write_text(SHARED[how])
        layers.append(load(folder / "kernels.py" if of == "a file" else folder).silu)
    assert [layer(torch.ones(1)).item() for layer in layers * 2] == [2, 3, 2, 3]


def test_the_files_of_a_folder_import_each_other_by_their_plain_names(tmp_path):
    (tmp_path / "silu.py").write_text(SILU)
    (tmp_path / "swiglu.py").write_text("from silu import silu\ndef swiglu(x, *weights): return silu(x)\n")
    (tmp_path / "llama.py").write_text("from llama import implementation\nllama = implementation.load('fused').llama\n")
    mine = load(tmp_path)
    assert list(mine.layers) == ["silu", "swiglu", "llama"]
    assert mine.swiglu.__globals__["silu"] is mine.silu


def test_what_was_imported_beside_a_file_is_imported_anew_when_it_is_loaded_again(tmp_path):
    (tmp_path / "shared.py").write_text("calls = []\n")
    (tmp_path / "kernels.py").write_text("from shared import calls\ndef silu(x): calls.append(x); return len(calls)\n")
    first, again = (load(tmp_path / "kernels.py").silu for _ in range(2))
    assert [first(0), first(0), again(0)] == [1, 2, 1]


def test_a_layer_that_two_files_define_differently_is_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text("def silu(x): return x")
    with pytest.raises(ImplementationError, match="defines silu in a and in b"):
        load(tmp_path)


def test_what_is_imported_from_torch_to_write_another_layer_is_not_a_layer(tmp_path):
    (tmp_path / "kernels.py").write_text(
        "from torch.nn.functional import linear, silu\ndef swiglu(x): return silu(x)\n"
    )
    assert tuple(load(tmp_path / "kernels.py").layers) == ("swiglu",)


def test_torchs_own_function_is_a_layer_where_a_file_has_no_other(tmp_path):
    (tmp_path / "kernels.py").write_text("from torch.nn.functional import linear\n")
    assert load(tmp_path / "kernels.py").files.keys() == {"linear"}


def test_a_file_that_ends_the_program_when_it_is_imported_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("import sys\nsys.exit(2)\n")
    with pytest.raises(ImplementationError, match="mine.py, line 2: SystemExit: 2"):
        load(tmp_path / "mine.py")


@pytest.mark.suite(
    {"mine.py": RIGHT}, "-vv", "--impl", "{folder}/mine.py", "--ignore", "tests/integration", HYPOTHESIS_PROFILE="quick"
)
@pytest.mark.cold
def test_the_suite_is_green_on_a_right_layer_and_runs_its_tests_only(run):
    assert run.returncode == 0, run.stdout
    # Not the folder of mine.py, although a path outside the project stands on the command line.
    assert f"rootdir: {ROOT}" in run.stdout
    assert "configfile: pyproject.toml" in run.stdout
    assert "under test: mine from " in run.stdout
    assert "deselected" in run.stdout
    assert "test_no_argument_is_changed[rms_norm-mine]" in run.stdout
    assert "test_rope" not in run.stdout


@pytest.mark.suite({"mine.py": WRONG}, "tests/unit/model/test_rms_norm.py", LLAMA_IMPL="{folder}/mine.py")
def test_the_suite_is_red_on_a_wrong_layer_named_by_the_environment(run):
    assert run.returncode == 1, run.stdout
    assert "out = rms_norm(torch.tensor([[" in run.stdout


HALF = "def silu(x):\n    return {} * x * x.sigmoid().detach()\n"


@pytest.mark.suite(
    {"a/naive.py": HALF.format(1), "b/naive.py": HALF.format(99)},
    *("--impl", "{folder}/a/naive.py", "--impl", "{folder}/b/naive.py", "tests/unit/model/test_silu.py"),
)
def test_two_files_of_the_same_name_are_both_tested_even_if_it_is_one_of_ours(run):
    for folder in "ab":
        assert re.search(rf"FAILED .*\[\S+{folder}/naive.py", run.stdout), run.stdout


@pytest.mark.suite({}, "--impl", "no_such_module", "tests/unit")
def test_an_unknown_name_is_a_usage_error_and_not_a_green_run(run):
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "an implementation is naive, vectorized, fused" in run.stderr


@pytest.mark.suite({"mine.py": RIGHT}, "--impl", "{folder}/mine.py", "tests/unit/model/test_rope.py")
def test_a_run_in_which_nothing_was_tested_is_not_green(run):
    assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED


def test_what_autocast_allows_is_refused_outside_of_it_even_after_it_was_allowed():
    x, weight = torch.ones(2, 3), torch.ones(4, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert implementation.load("fused").linear(x, weight).shape == (2, 4)
    with pytest.raises(ValueError, match="linear: weight must be float32 like x, got bfloat16"):
        implementation.load("fused").linear(x, weight)


@pytest.mark.parametrize("name", ["naive", "vectorized", "fused"])
def test_what_is_wrong_is_refused_even_after_its_like_was_right(name):
    """A contract remembers what it allowed; a call that differs in one type, shape, name or nesting is another one."""
    layers, x, weight = load(name), torch.ones(2, 4), torch.ones(4)
    projections = (*(torch.ones(4, 4) for _ in range(4)), 2, 2)
    turns = torch.arange(3), torch.ones(1)
    for _ in range(2):
        layers.rms_norm(x=x, weight=weight)
        layers.self_attention(torch.ones(1, 3, 4), *projections, *turns)
        layers.clip_grad_norm([x, weight], 1.0)
        with pytest.raises(ValueError, match=r"rms_norm: weight must be \[d_model\]"):
            layers.rms_norm(weight=x, x=weight)
        for wrong in (2.0, True):
            with pytest.raises(TypeError, match="self_attention: n_kv_heads must be an integer"):
                layers.self_attention(torch.ones(1, 3, 4), *projections[:-1], wrong, *turns)
        with pytest.raises((TypeError, ValueError), match=r"clip_grad_norm: grads\[0\] must be"):
            layers.clip_grad_norm([[x, weight]], 1.0)
        with pytest.raises(TypeError, match="rms_norm: eps must be a number"):
            layers.rms_norm(x, weight, "1e-5")


@pytest.mark.parametrize("name", ["vectorized", "fused"])
def test_frequencies_of_rope_may_be_learnt(name):
    x, at, turns = torch.ones(1, 1, 2, 4), torch.arange(2), torch.tensor([0.5, 0.25], requires_grad=True)
    load(name).rope(x, at, turns)[..., 0].sum().backward()
    # The first feature of position 1 is cos(f) - sin(f), and its derivative -sin(f) - cos(f).
    assert turns.grad.tolist() == pytest.approx([-math.sin(0.5) - math.cos(0.5), 0.0])


@pytest.mark.parametrize("name", ["naive", "vectorized", "fused"])
@pytest.mark.parametrize(("token", "shape"), [(0, (0, 3)), (99, (3, 0))], ids=str)
def test_an_id_outside_an_empty_table_is_an_index_error(name, token, shape):
    with pytest.raises(IndexError, match=f"embedding: token_ids must lie in 0..{shape[0] - 1}, got {token}"):
        load(name).embedding(torch.tensor([token]), torch.zeros(shape))


@pytest.mark.parametrize("name", ["vectorized", "fused"])
def test_a_wider_weight_of_a_norm_is_not_rounded_where_it_is_learnt(name):
    """1e5 is beyond float16, but 1e5 times a small feature is not."""
    x, weight = torch.tensor([[1e-3, 1.0, 1.0, 1.0]]).half(), torch.full((4,), 1e5, requires_grad=True)
    y = load(name).rms_norm(x, weight)[0, 0].item()
    assert y == pytest.approx(1e2 * (4 / 3) ** 0.5, rel=2**-10)


def test_the_naive_gradients_have_the_dtypes_of_their_arguments_too():
    naive, grad = load("naive"), torch.ones(2, 3, dtype=torch.bfloat16)
    x, weight = torch.ones(2, 3, dtype=torch.float16), torch.ones(3)
    assert [t.dtype for t in naive.rms_norm_backward(grad, x, weight)] == [torch.float16, torch.float32]
    assert naive.silu_backward(grad, x).dtype == torch.float16
    assert naive.softmax_backward(grad, x).dtype == torch.bfloat16  # x itself is not passed


def test_what_an_implementation_lacks_are_gradients_only_where_these_are_asked_for(tmp_path):
    (tmp_path / "mine.py").write_text("def silu(x):\n    return x\n\ndef silu_backward(grad, x):\n    return grad\n")
    mine, gradients = load(tmp_path / "mine.py"), set(CHAPTERS["gradients"])
    assert set(mine.lacking()) == set(LAYERS) - gradients - {"silu"}
    assert set(mine.lacking(gradients=True)) == set(LAYERS) - {"silu", "silu_backward"}


def test_a_composed_gradient_of_another_says_nothing_of_its_forward_pass(tmp_path):
    (tmp_path / "mine.py").write_text("def decoder_layer_backward(*args):\n    return args\n")
    assert load(tmp_path / "mine.py").composes == []
