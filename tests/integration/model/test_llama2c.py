"""The files of llama2.c: the layout of their weights, their tokenizer, and the story that theirs tells."""

import itertools
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama.generation.stream import generate
from llama.model import checkpoint
from llama.model.llama2c import load_llama2c
from llama.text.llama2c_tokenizer import Llama2cTokenizer
from tests.judge.assertions import assert_close, assert_identical
from tests.judge.tolerances import tolerance

STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
BYTES = [f"<0x{byte:02X}>".encode() for byte in range(256)]


@pytest.fixture(scope="module")
def stories():
    folder = os.environ.get("LLAMA_DATA_DIR")
    if not folder or not (Path(folder) / "stories260K.bin").is_file():
        pytest.skip("needs the real data: set LLAMA_DATA_DIR to a folder with stories260K.bin and tok512.bin")
    return checkpoint.load(Path(folder) / "stories260K.bin")


def test_the_small_model_of_tinystories_tells_its_story(stories):
    model, tokenizer = stories
    text = tokenizer.decode(generate(model, tokenizer.encode("")[None], 40, temperature=0)[0])
    assert text.startswith(STORY)


def test_its_tokens_are_those_of_llama2c(stories):
    tokenizer = stories[1]
    assert tokenizer.encode("Once upon a time").tolist() == [1, 403, 407, 261, 378]
    assert tokenizer.encode("").tolist() == [1]
    assert tokenizer.vocab == 512


@given(text=st.text())
def test_its_tokens_give_any_text_back(stories, text):
    tokenizer = stories[1]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_its_config_is_what_the_header_says(stories):
    config = stories[0].config
    assert (config.vocab_size, config.max_position_embeddings, config.num_hidden_layers) == (512, 512, 5)
    assert (config.hidden_size, config.intermediate_size) == (64, 172)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (8, 4, 8)
    assert config.tie_word_embeddings
    assert config.ends == (1, 2)


# A small file whose every weight is another number.

DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCAB, SEQ = 12, 5, 2, 3, 1, 7, 6
HALF = DIM // HEADS // 2
ARRAYS = {
    "embeddings": (VOCAB, DIM),
    "attention_norm": (LAYERS, DIM),
    "wq": (LAYERS, DIM, DIM),
    "wk": (LAYERS, KV_HEADS * 2 * HALF, DIM),
    "wv": (LAYERS, KV_HEADS * 2 * HALF, DIM),
    "wo": (LAYERS, DIM, DIM),
    "ffn_norm": (LAYERS, DIM),
    "w1": (LAYERS, HIDDEN, DIM),
    "w2": (LAYERS, DIM, HIDDEN),
    "w3": (LAYERS, HIDDEN, DIM),
    "norm": (DIM,),
    "angles": (2, SEQ, HALF),
    "head": (VOCAB, DIM),
}


def _arrays(tied):
    random = np.random.default_rng(5)
    return {
        name: random.normal(size=shape).astype("<f4") for name, shape in ARRAYS.items() if not (tied and name == "head")
    }


def _header(tied=True, **changes):
    sizes = {"dim": DIM, "hidden": HIDDEN, "layers": LAYERS, "heads": HEADS, "kv_heads": KV_HEADS}
    return struct.pack("<7i", *(sizes | {"vocab": VOCAB if tied else -VOCAB, "seq": SEQ} | changes).values())


def _written(path, tied):
    arrays = _arrays(tied)
    path.write_bytes(_header(tied) + b"".join(array.tobytes() for array in arrays.values()))
    return {name: array.astype(np.float64) for name, array in arrays.items()}


def _by_hand(w, ids):
    """The logits as run.c computes them: token by token, in pairs of neighbouring features. NumPy, float64."""

    def norm(x, weight):
        return x / np.sqrt((x * x).mean() + 1e-5) * weight

    def turned(vector, position):
        out = vector.copy()
        for head in range(0, len(vector), 2 * HALF):
            for i in range(0, 2 * HALF, 2):
                angle = position * 10000.0 ** (-i / (2 * HALF))
                a, b = vector[head + i], vector[head + i + 1]
                out[head + i] = a * np.cos(angle) - b * np.sin(angle)
                out[head + i + 1] = a * np.sin(angle) + b * np.cos(angle)
        return out

    held = [([], []) for _ in range(LAYERS)]
    logits = []
    for position, token in enumerate(ids):
        x = w["embeddings"][token]
        for layer, (keys, values) in enumerate(held):
            y = norm(x, w["attention_norm"][layer])
            q = turned(w["wq"][layer] @ y, position)
            keys.append(turned(w["wk"][layer] @ y, position))
            values.append(w["wv"][layer] @ y)
            mixed = []
            for head in range(HEADS):  # one key head serves all
                scores = np.array([q[head * 2 * HALF :][: 2 * HALF] @ key for key in keys]) / np.sqrt(2 * HALF)
                weights = np.exp(scores - scores.max())
                mixed.append(weights / weights.sum() @ np.array(values))
            x = x + w["wo"][layer] @ np.concatenate(mixed)
            y = norm(x, w["ffn_norm"][layer])
            gate = w["w1"][layer] @ y
            x = x + w["w2"][layer] @ (gate / (1 + np.exp(-gate)) * (w["w3"][layer] @ y))
        logits.append(w.get("head", w["embeddings"]) @ norm(x, w["norm"]))
    return np.array(logits)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_logits_are_those_of_the_formulas_in_run_c(tmp_path, tied):
    arrays = _written(tmp_path / "model.bin", tied)
    model = load_llama2c(tmp_path / "model.bin").double()
    ids = [3, 1, 4, 1, 5, 6]
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[0]
    # What turns is held to float32.
    assert_close(logits, torch.from_numpy(_by_hand(arrays, ids)), within=tolerance(torch.float64, "llama"))


def test_what_needs_no_other_order_is_read_as_it_stands(tmp_path):
    arrays = _written(tmp_path / "model.bin", tied=False)
    tensors = load_llama2c(tmp_path / "model.bin").state_dict()
    assert_identical(tensors["lm_head.weight"].double(), torch.from_numpy(arrays["head"]))
    assert_identical(tensors["model.layers.1.mlp.up_proj.weight"].double(), torch.from_numpy(arrays["w3"][1]))
    assert {t.dtype for t in tensors.values()} == {torch.float32}


def test_a_folder_written_from_it_is_the_same_model(tmp_path):
    _written(tmp_path / "model.bin", tied=False)
    model = load_llama2c(tmp_path / "model.bin")
    model.save_pretrained(tmp_path / "folder")
    again = type(model).from_pretrained(tmp_path / "folder")
    assert again.config == model.config
    for name, tensor in model.state_dict().items():
        assert_identical(again.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has 0 bytes, fewer than the 28 of a header"),
        (_header(), "has 28 bytes where its sizes ask for 5,212"),
        (_header(dim=-1), r"no checkpoint of llama2.c \(config: hidden_size must be at least 1, got -1\)"),
        (_header(vocab=0), "vocab_size must be at least 1, got 0"),
        (_header(heads=5), "num_attention_heads must divide hidden_size, got 5 and 12"),
        (_header(heads=4), "head_dim must be even, got 3"),
        (
            _header(**dict.fromkeys(("dim", "hidden", "layers", "vocab", "seq"), 2**31 - 2)),
            "has 28 bytes where its siz",
        ),
    ],
)
def test_a_header_that_does_not_fit_the_file_is_refused(tmp_path, content, sentence):
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as refused:
        load_llama2c(tmp_path / "model.bin")
    assert str(refused.value).startswith("llama2c: ")


@pytest.mark.parametrize("change", [-4, 4])
def test_a_file_that_is_shorter_or_longer_than_it_says_is_refused(tmp_path, change):
    path = tmp_path / "model.bin"
    _written(path, tied=True)
    content = path.read_bytes()
    path.write_bytes(content + bytes(4) if change > 0 else content[:change])
    with pytest.raises(ValueError, match=f"has {5212 + change:,} bytes where its sizes ask for 5,212"):
        load_llama2c(path)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (np.inf, "inf")])
def test_a_weight_that_is_no_number_is_refused_with_its_place(tmp_path, value, word):
    path = tmp_path / "model.bin"
    _written(path, tied=True)
    content = bytearray(path.read_bytes())
    content[28 + 4 * 13 : 28 + 4 * 14] = struct.pack("<f", value)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"model.embed_tokens.weight\[1, 1\] is {word}, weights must be finite"):
        load_llama2c(path)


# The tokenizer.


def _merged_by_hand(pieces, scores, text):
    """run.c's own loop: look at all pairs, merge the best, begin again."""
    ids = [pieces.index(character.encode()) for character in " " + text]
    while True:
        pairs = [(pieces[a] + pieces[b], i) for i, (a, b) in enumerate(itertools.pairwise(ids))]
        known = [(scores[pieces.index(union)], -i, pieces.index(union)) for union, i in pairs if union in pieces]
        if not known:
            return [1, *ids]
        _, place, union = max(known)
        ids[-place : -place + 2] = [union]


@given(
    more=st.lists(st.text("ab ", min_size=2, max_size=4), unique=True, max_size=12),
    scores=st.lists(st.sampled_from([-3.0, -2.0, -1.0]), min_size=12, max_size=12),
    text=st.text("ab ", min_size=1, max_size=20),
)
def test_the_pair_with_the_best_score_is_merged_first_and_of_equal_ones_the_first(more, scores, text):
    pieces = [b"<unk>", b"<s>", b"</s>", b" ", b"a", b"b", *(piece.encode() for piece in more)]
    scores = [0.0] * 6 + scores[: len(more)]
    tokenizer = Llama2cTokenizer(pieces, scores)
    assert tokenizer.encode(text).tolist() == _merged_by_hand(pieces, scores, text)


@pytest.mark.parametrize(("scores", "ids"), [((-1.0, -2.0), [1, 3, 7, 6]), ((-2.0, -1.0), [1, 3, 4, 8])])
def test_of_two_pairs_that_share_a_token_the_one_with_the_higher_score_is_merged(scores, ids):
    pieces = [b"<unk>", b"<s>", b"</s>", b" ", b"a", b"b", b"c", b"ab", b"bc"]
    assert Llama2cTokenizer(pieces, [0.0] * 7 + list(scores)).encode("abc").tolist() == ids


def _tokenizer(*pieces):
    given = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *BYTES, *pieces]
    return Llama2cTokenizer(given, [-float(i) for i in range(len(given))])


def test_a_character_that_is_no_token_becomes_its_bytes():
    tokenizer = _tokenizer(b" ", b"a")
    assert tokenizer.encode("aé").tolist() == [1, 259, 260, 3 + 0xC3, 3 + 0xA9]
    assert tokenizer.decode(tokenizer.encode("aé")) == "aé"


def test_a_text_that_spells_a_byte_or_a_control_token_stays_text():
    tokenizer = _tokenizer(b" ", *(bytes([b]) for b in b"<0x41>/s\n"))
    for text in ("<0x41>", "\n<s>\n", "\n</s>\n"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_character_without_bytes_is_refused_with_its_place():
    tokenizer = Llama2cTokenizer([b"<unk>", b"<s>", b"</s>", b" ", b"a"], [0.0] * 5)
    with pytest.raises(ValueError, match="the vocabulary lacks 'b', at position 2"):
        tokenizer.encode("aab")


def test_one_space_behind_the_beginning_is_taken_away_and_no_other():
    tokenizer = _tokenizer(b" a", b" ")
    assert tokenizer.decode([1, 259, 259]) == "a a"
    assert tokenizer.decode([259, 259]) == " a a"
    assert tokenizer.decode([1, 260, 259, 2]) == " a"


def test_half_a_character_is_decoded_as_a_replacement():
    assert _tokenizer().decode([3 + 0xC3]) == "\ufffd"


@pytest.mark.parametrize("outside", [-1, 259])
def test_an_id_outside_the_vocabulary_is_refused(outside):
    with pytest.raises(IndexError, match=f"tokenizer: ids must lie in 0..258, got {outside}"):
        _tokenizer().decode([outside])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"abc", "has 3 bytes, too few for a tokenizer of llama2.c"),
        (struct.pack("<i", 5), "has 0 tokens, too few for one that begins a text"),
        (
            struct.pack("<ifi", 5, 0.0, -1),
            "token 0 has -1 bytes, beyond the longest of 5 and the 0 bytes that are l",
        ),
        (struct.pack("<ifi", 5, 0.0, 2**30), "token 0 has 1073741824 bytes, beyond"),
        (struct.pack("<ifi", 1, 0.0, 2) + b"ab", "token 0 has 2 bytes, beyond the longest of 1"),
        (struct.pack("<ifi", 5, np.nan, 1) + b"a", "token 0 has the score nan"),
        (struct.pack("<if", 5, 0.0), "ends within token 0"),
    ],
    ids=["too short", "empty", "negative", "beyond the file", "beyond the longest", "score", "within a token"],
)
def test_a_tokenizer_file_that_does_not_fit_together_is_refused(tmp_path, content, sentence):
    (tmp_path / "tok.bin").write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        Llama2cTokenizer.load(tmp_path / "tok.bin")
