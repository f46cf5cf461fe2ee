"""What is said of an error: its line, what stands in it, and advice in words that a beginner has."""

import importlib.util

import pytest
import torch

from tests.judge.telling.errors import in_words

X, TARGETS, LOGITS = torch.ones(2, 3, 4), torch.tensor([0, 1]), torch.ones(2, 5)
Q, K = torch.ones(1, 4, 3, 2), torch.ones(1, 2, 3, 2)
IDS, WEIGHT = torch.tensor([[0, 1]]), torch.ones(6, 4)
WEIGHTS = {"self_attn.q_proj.weight": WEIGHT}

SAID = [
    ("x / x.pow(2).mean(-1).sqrt()", {"x": X}, "Axes are compared from the right"),
    (
        "x / rms",
        {"x": X, "rms": X.mean(-1)},
        "rms has no last axis any more, and axes are compared from the right: keepdim",
    ),
    ("x * cos", {"x": X, "cos": X[..., :2]}, "cos has half as many columns as x"),
    ("q * angle", {"q": torch.ones(5, 4, 3, 2), "angle": torch.ones(5, 3, 2)}, "angle lacks axis 1 of q: unsqueeze(1)"),
    (
        "x @ weight",
        {"x": X, "weight": WEIGHT},
        "weight is [out in], and its last axis is the one to sum over: x @ weight.T",
    ),
    ("x @ weight.T", {"x": torch.ones(2, 6), "weight": WEIGHT}, "weight fits as it is: leave out the .T"),
    ("q @ q.T", {"q": Q}, "q has 4 axes, and .T turns all of them around"),
    ("q @ k.transpose(-1, -2)", {"q": Q, "k": K}, "k has fewer heads than q"),
    (
        "x - x.max(-1)",
        {"x": X},
        ".max(dim) returns two things, the values and their indices: take .values, or use .amax",
    ),
    ("10 ** (range(4) / 4)", {}, "torch.arange makes a tensor of it"),
    ("param - 0.1 * param.grad", {"param": X}, "the gradient comes in as an argument"),
    ("x.softmax(dim=1)", {"x": X[0, 0]}, "The tensor has 1 axis here, so there is no dim=1"),
    ("x[0, 0]", {"x": X[0, 0]}, "The tensor has 1 axes here"),
    ("logits.gather(-1, targets)", {"logits": LOGITS, "targets": TARGETS}, "targets.unsqueeze(-1)"),
    ("ids @ weight", {"ids": torch.ones(1, 6).long(), "weight": WEIGHT}, "different dtypes (float32 and int64)"),
    ("torch.einsum('bsd,od->bso', x, weight)", {"x": X[0], "weight": WEIGHT}, "which einsum writes as `...`"),
    ("1 if x > 0 else 0", {"x": X}, "torch.where(condition, a, b) chooses element by element"),
    ("x.view(2, 2, 4)", {"x": X}, "[2, 2, 4] holds 16 elements, and there are 24"),
    ("x.transpose(0, 1).view(-1)", {"x": X}, "use reshape"),
    ("x.requires_grad_().numpy()", {"x": X.clone()}, "NumPy knows neither gradients nor bfloat16"),
    ("weights['self_attn.q_proj']", {"weights": WEIGHTS}, "Is self_attn.q_proj.weight meant?"),
    ("torch.log_sum_exp(x)", {"x": X}, "Is logsumexp meant?"),
    ("x.sofmax(-1)", {"x": X}, "Is .softmax meant?"),
    ("torch.silu(x)", {"x": X}, "silu is to be found as torch.nn.functional.silu"),
    ("nothing(x)", {"x": X}, "Nothing here is called nothing"),
    ("xs + 1", {"x": X}, "Is x meant?"),
    ("F.silu(x)", {"x": X}, "`import torch.nn.functional as F` is missing at the top of the file"),
    ("self.eps + x", {"x": X}, "self belongs to a class"),
    ("math.exp(x)", {"x": X}, "take one number, and this is a tensor of many"),
    ("torch.sqrt(4)", {}, "this is a number: math.sqrt"),
    ("x.mean * 2", {"x": X}, "it lacks its parentheses"),
    ("torch.stack([x, x[0]])", {"x": X}, "Only tensors of one shape can be stacked"),
    ("ids.mean(-1)", {"ids": IDS}, "These are integers"),
    ("torch.nn.functional.cross_entropy(x, ids)", {"x": X, "ids": IDS}, "wants the classes along axis 1"),
    ("rows, columns = x.shape", {"x": X}, "Count sizes from the end"),
    ("layer(x)", {"x": X}, "layer calls itself without an end"),
]


def _raised(tmp_path, code, given):
    """The words for what this line raises in a file called mine.py."""
    file = tmp_path / "mine.py"
    returned = code if "=" in code.split("(")[0] else f"return {code}"
    file.write_text(
        f"import {'math, ' if 'math' in code else ''}torch\ndef layer({', '.join(given)}):\n    {returned}\n"
    )
    spec = importlib.util.spec_from_file_location("mine", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        module.layer(**given)
    except Exception as error:
        return in_words(error, {str(file)})
    pytest.fail(f"{code} raises nothing")


@pytest.mark.filterwarnings("ignore")  # as where the layer of another is tested
@pytest.mark.parametrize(("code", "given", "advice"), SAID, ids=[code for code, _, _ in SAID])
def test_an_error_comes_with_its_line_and_with_advice(tmp_path, code, given, advice):
    place, *said = _raised(tmp_path, code, given)
    assert place.startswith("In line 3 of mine.py, `")
    assert advice in " ".join(said)


def test_what_stands_in_the_line_is_shown_with_its_shapes_and_nothing_else(tmp_path):
    (place, *_) = _raised(tmp_path, "weight.bfloat16() + x @ ids", {"x": X, "ids": IDS, "weight": WEIGHT, "eps": 1e-5})
    assert place == "In line 3 of mine.py, `x @ ids`: x is [2, 3, 4], ids is [1, 2] int64"


def test_of_an_error_that_is_not_known_there_is_the_place_alone(tmp_path):
    assert _raised(tmp_path, "(lambda: [][x])()", {"x": 5}) == ["In line 3 of mine.py, `[][x]`: x is 5"]


def test_an_error_that_the_layer_raises_itself_is_left_to_its_own_words(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def layer():\n    raise ValueError('too few')\n")
    namespace = {}
    exec(compile(file.read_text(), str(file), "exec"), namespace)
    with pytest.raises(ValueError, match="too few") as raised:
        namespace["layer"]()
    assert in_words(raised.value, {str(file)}) == []


def test_an_error_from_elsewhere_has_no_place_in_the_file(tmp_path):
    with pytest.raises(ZeroDivisionError) as raised:
        print(1 / 0)
    assert in_words(raised.value, {str(tmp_path / "mine.py")}) == []
