"""What an author claims of a kernel: the words, what each leaves out, and that nothing is left out in silence."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama.implementation import Claims, ImplementationError, load, tensors
from llama.implementation.claims import DTYPES, WORDS
from tests.cases import target
from tests.cases.calls import FLAGS, arguments, drawn
from tests.cases.case import Case
from tests.cases.sizes import small

# As many kernels are: each line that raises is what its claims leave out.
HALF = """
import torch

CLAIMS = "float16 bfloat16, forward, no strides, no empty batch"

def rms_norm(x, weight, eps=1e-5):
    if x.dtype not in (torch.float16, torch.bfloat16):
        raise TypeError("half precision only")
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        raise RuntimeError("no backward")
    if not x.is_contiguous() or not x.numel():
        raise ValueError("contiguous and not empty")
    wide = x.detach().float()
    return (wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.detach().float()).to(x.dtype)
"""
# Without the parameters that it has no use for.
SQUARE = """
import torch.nn.functional as F

CLAIMS = "float32 float64, causal only, no mask, no grouped heads, no cache"

def attention(q, k, v):
    assert q.shape == k.shape
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)
"""
TESTS = ("tests/property/every_layer/test_values.py", "tests/property/every_layer/test_layouts.py")


@pytest.mark.suite({"mine.py": HALF}, "--impl", "{folder}/mine.py", "tests/unit/model/test_rms_norm.py", *TESTS)
def test_a_kernel_that_does_what_it_claims_and_no_more_is_green(run):
    assert run.returncode == 0, run.stdout
    assert "mine claims float16 bfloat16, forward, no strides, no empty batch" in run.stdout
    assert "not claimed: float64, float32, gradients, strides, empty batch: " in run.stdout
    assert " 0 tests left out" not in run.stdout
    assert " 0 tests with fewer" not in run.stdout


@pytest.mark.suite({"mine.py": SQUARE}, "--impl", "{folder}/mine.py", "tests/unit/model/test_attention.py", *TESTS)
def test_a_kernel_without_the_parameters_that_it_does_not_claim_is_green(run):
    assert run.returncode == 0, run.stdout
    assert "not claimed: float16, bfloat16, mask, causal=False, grouped heads, fewer queries than keys: " in run.stdout


@pytest.mark.suite(
    {"mine.py": HALF}, "--impl", "{folder}/mine.py", "--claims", "forward", "tests/unit/model/test_rms_norm.py"
)
def test_what_is_claimed_on_the_command_line_takes_the_place_of_what_the_file_claims(run):
    assert run.returncode == 1, run.stdout
    assert "raised TypeError (mine.py, line 8): half precision only" in run.stdout
    assert "not claimed: gradients: " in run.stdout


@pytest.mark.suite({"mine.py": HALF}, "--impl", "{folder}/mine.py", "--claims", "float8", "tests/unit")
def test_a_word_that_there_is_not_is_refused_with_those_that_there_are(run):
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"mine.py: 'float8' is no claim; the claims are {', '.join([*DTYPES, *WORDS])}" in run.stderr


def test_claims_are_words_between_commas_in_any_order():
    claims = Claims.parse("no  mask, bfloat16 float32,forward")
    assert claims == Claims(("float32", "bfloat16"), ("forward", "no mask"))
    assert str(claims) == "float32 bfloat16, forward, no mask"
    assert claims.not_claimed == ["float64", "float16", "gradients", "mask"]
    assert not Claims.parse("")
    assert not Claims.parse("float64 float32 float16 bfloat16")


def test_a_file_of_a_folder_claims_for_its_own_layer_and_init_for_the_rest(tmp_path):
    (tmp_path / "__init__.py").write_text("CLAIMS = 'forward'\n")
    (tmp_path / "silu.py").write_text("CLAIMS = 'bfloat16'\ndef silu(x): return x\n")
    (tmp_path / "softmax.py").write_text("def softmax(x): return x\n")
    assert {layer: str(c) for layer, c in load(tmp_path).claims.items()} == {"softmax": "forward", "silu": "bfloat16"}
    (tmp_path / "silu.py").write_text("CLAIMS = 'no gradients'\ndef silu(x): return x\n")
    with pytest.raises(ImplementationError, match="'no gradients' is no claim; the claims are float64, float32"):
        load(tmp_path)


X = torch.ones(1, 2, 3, 4)
CALLS = {
    "float32": ("silu", (X.bfloat16(),), {}, "bfloat16"),
    "forward": ("silu", (X.clone().requires_grad_(),), {}, "gradients"),
    "no mask": ("attention", (X, X, X), {"mask": torch.ones(3, 3, dtype=torch.bool)}, "mask"),
    "causal only": ("attention", (X, X, X, False), {}, "causal=False"),
    "no grouped heads": ("attention", (X, X[:, :1], X[:, :1]), {}, "grouped heads"),
    "no cache": ("attention", (X[:, :, :1], X, X), {}, "fewer queries than keys"),
    "no strides": ("silu", (X.mT,), {}, "strides"),
    "one dtype": ("rms_norm", (X.bfloat16(), X[0, 0, 0]), {}, "mixed dtypes"),
    "no empty batch": ("silu", (X[:0],), {}, "empty batch"),
}


@pytest.mark.parametrize("word", CALLS)
def test_each_word_leaves_out_what_it_says_and_nothing_else(word):
    layer, args, kwargs, lacking = CALLS[word]
    claims = Claims.parse(word).about(layer)
    assert claims.refusal(layer, args, kwargs) == lacking
    assert claims.refusal("attention", (X, X, X), {"causal": True, "mask": None}) == ""
    assert Claims.parse("").refusal(layer, args, kwargs) == ""
    assert lacking in Claims.parse(word).not_claimed


def test_every_word_is_tried():
    assert CALLS.keys() - DTYPES.keys() == WORDS.keys()


def test_a_forward_kernel_may_be_given_weights_that_learn_where_no_gradient_is_wanted():
    with torch.no_grad():
        assert Claims.parse("forward").refusal("silu", (X.clone().requires_grad_(),), {}) == ""


def test_a_claim_that_does_not_concern_a_layer_leaves_it_whole():
    claims = Claims.parse("bfloat16, forward, no mask")
    assert str(claims.about("silu")) == "bfloat16, forward"
    assert str(claims.about("adamw")) == "bfloat16"
    assert not claims.about("rope_frequencies")


@given(data=st.data())
@pytest.mark.parametrize("of", ["attention", "rms_norm", "rope", "llama"])
def test_what_is_drawn_is_claimed(of, data):
    claims = Claims.parse("float16 bfloat16, no mask, causal only, no grouped heads, no cache, no strides").about(of)
    target.use_claims(claims)
    args, kwargs = arguments(of, data.draw(drawn(of, layouts=True)))
    assert claims.refusal(of, args, kwargs) == ""
    assert {"float64", "float32"} <= target.NARROWED


def test_a_sweep_over_flags_holds_what_is_claimed_and_says_what_it_does_not_hold():
    target.use_claims(Claims.parse("float64 bfloat16, no mask"))
    made = [arguments("attention", Case(small("attention"), torch.float32, seed)) for seed in range(FLAGS)]
    assert all("mask" not in kwargs for _, kwargs in made)
    assert {t.dtype for args, _ in made for t in tensors(args)} == {torch.float64}
    assert {"float32", "mask"} == target.NARROWED


def test_numbers_that_a_claimed_dtype_does_not_hold_are_known():
    target.use_claims(Claims.parse("bfloat16"))
    exact, rounded = target.tensor([0.5, 3.0]), target.tensor([0.1, 3.0])
    assert exact.dtype == rounded.dtype == torch.bfloat16
    assert not target.is_rounded(exact)
    assert target.is_rounded(rounded[:1])
