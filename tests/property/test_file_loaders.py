"""Damaged and hostile files: each is read rightly or refused in one line, whatever its bytes are.

What counts as an answer is a result that works, a ValueError or an OSError. Any other exception, a crash, or memory
for sizes that only a header claims, is a bug.
"""

import json
import struct
import tempfile
from pathlib import Path

import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama.model.config import LlamaConfig
from llama.model.llama import Llama
from llama.model.llama2c import load_llama2c
from llama.text.corpus import load_corpus
from llama.text.tokenizer import CharTokenizer, load

SIZES = {"vocab_size": 11, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 6}
ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
NUMBERS = st.integers() | st.integers(-3, 70) | st.sampled_from([2**31, 2**63, 10**400, -(10**400)]) | st.floats()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
IDS = torch.tensor([[0, 1, 2]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint whose files the tests put back in damaged form."""
    path = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    Llama(LlamaConfig(**SIZES, num_key_value_heads=1)).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def config(folder):
    return json.loads((folder / "config.json").read_bytes())


@pytest.fixture(scope="module")
def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def llama2c():
    """The smallest file of llama2.c, in bytes: dim 4, one layer, two tokens."""
    sizes = (4, 3, 1, 2, 1, 2, 3)
    count = 2 * 4 + 4 + 16 + 8 + 8 + 16 + 4 + 12 + 12 + 12 + 4 + 2 * 3
    return struct.pack("<7i", *sizes) + struct.pack(f"<{count}f", *(0.125 * (i % 7) for i in range(count)))


def _tokens_of_llama2c():
    pieces = [b"<unk>", b"<s>", b"</s>", b"<0x41>", b" ", b"a", b" a"]
    return struct.pack("<i", 6) + b"".join(struct.pack("<fi", -i, len(p)) + p for i, p in enumerate(pieces))


def _tokenizer_json():
    model = tokenizers.models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])
    return tokenizers.Tokenizer(model).to_str().encode()


TOKENIZERS = {
    "tok.bin": _tokens_of_llama2c(),
    "characters.json": b'{"characters": "ab \\u00e9"}',
    "tokenizer.json": _tokenizer_json(),
}


def _answer(read, *args):
    """What reading gives, or None where it is refused as it should be."""
    try:
        return read(*args)
    except (ValueError, OSError) as error:
        sentence = str(error)
    assert len(sentence.splitlines()) == 1
    return None


@st.composite
def damaged(draw, content):
    """The bytes with some changed, some cut out or put in, or with an end of another length."""
    kind = draw(st.sampled_from(["change", "cut", "insert", "end"]))
    at = draw(st.integers(0, len(content)))
    if kind == "change":
        changed = bytearray(content)
        for place in draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
            changed[place] = draw(st.integers(0, 255))
        return bytes(changed)
    if kind == "insert":
        return content[:at] + draw(st.binary(min_size=1, max_size=9)) + content[at:]
    return content[:at] + (content[at + draw(st.integers(1, 9)) :] if kind == "cut" else b"")


@st.composite
def other(draw, value):
    """The JSON value with one field, at whatever depth, changed, taken out or put in."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        name = draw(st.sampled_from(sorted(value)))
        how = draw(st.sampled_from(["inside", "inside", "inside", "delete", "insert"]))
        if how == "delete":
            return {key: held for key, held in value.items() if key != name}
        if how == "insert":
            return value | {draw(st.text(max_size=5)): draw(JSON)}
        return value | {name: draw(other(value[name]))}
    return draw(JSON)


def _works(model):
    """A model that was read has weights that are numbers, and computes logits of the right shape."""
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    with torch.no_grad():
        assert model(IDS % model.config.vocab_size).shape == (1, 3, model.config.vocab_size)


def _put(path, content):
    """In place of the file, so that what was read from the earlier one stays as it was."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


@given(data=st.data())
def test_any_change_of_a_config_is_refused_or_right(folder, config, weights, data):
    rotated = config | {"rope_parameters": ROPE, "rope_scaling": None}
    fields = data.draw(other(data.draw(st.sampled_from([config, rotated]))))
    _put(folder / "config.json", json.dumps(fields).encode())
    _put(folder / "model.safetensors", weights)
    if model := _answer(Llama.from_pretrained, folder):
        assert {name: fields[name] for name in SIZES} == SIZES
        _works(model)


@given(data=st.data())
def test_any_bytes_in_place_of_a_config_are_refused_or_right(folder, config, weights, data):
    written = json.dumps(config).encode()
    _put(folder / "config.json", data.draw(st.binary(max_size=50) | damaged(written) | st.just(b"[" * 100_000)))
    _put(folder / "model.safetensors", weights)
    if model := _answer(Llama.from_pretrained, folder):
        _works(model)


@given(data=st.data())
def test_any_bytes_in_place_of_the_weights_are_refused_or_right(folder, config, weights, data):
    length = struct.pack("<Q", data.draw(st.integers(0, 2**64 - 1) | st.integers(0, 200)))
    content = data.draw(damaged(weights) | st.just(length + weights[8:]) | st.binary(max_size=60))
    _put(folder / "config.json", json.dumps(config).encode())
    _put(folder / "model.safetensors", content)
    if model := _answer(Llama.from_pretrained, folder):
        _works(model)


@given(data=st.data())
def test_any_header_of_the_weights_is_refused_or_right(folder, config, weights, data):
    (length,) = struct.unpack_from("<Q", weights)
    header = json.dumps(data.draw(other(json.loads(weights[8 : 8 + length])))).encode()
    _put(folder / "config.json", json.dumps(config).encode())
    _put(folder / "model.safetensors", struct.pack("<Q", len(header)) + header + weights[8 + length :])
    if model := _answer(Llama.from_pretrained, folder):
        _works(model)


@given(data=st.data())
def test_any_index_is_refused_or_right(config, weights, data):
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "a.safetensors").write_bytes(weights)
        (length,) = struct.unpack_from("<Q", weights)
        names = json.loads(weights[8 : 8 + length]).keys() - {"__metadata__"}
        index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(sorted(names), "a.safetensors")}
        (folder / "model.safetensors.index.json").write_text(json.dumps(data.draw(other(index))))
        if model := _answer(Llama.from_pretrained, folder):
            _works(model)
            del model


@given(data=st.data())
def test_any_file_of_llama2c_is_refused_or_right(folder, llama2c, data):
    sizes = st.integers(-(2**31), 2**31 - 1) | st.integers(-2, 8)
    header = struct.pack("<7i", *data.draw(st.tuples(*[sizes] * 7))) + llama2c[28:]
    content = data.draw(damaged(llama2c) | st.just(header) | st.binary(max_size=60) | st.just(llama2c))
    _put(folder / "model.bin", content)
    if model := _answer(load_llama2c, folder / "model.bin"):
        _works(model)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data(), text=st.text("ab Aé\n", max_size=8))
def test_any_tokenizer_file_is_refused_or_right(folder, name, data, text):
    content = TOKENIZERS[name]
    contents = damaged(content) | st.binary(max_size=40)
    if name.endswith(".json"):
        contents |= other(json.loads(content)).map(lambda value: json.dumps(value).encode())
    _put(folder / name, data.draw(contents))
    if (tokenizer := _answer(load, folder / name)) and (ids := _answer(tokenizer.encode, text)) is not None:
        assert ((ids >= 0) & (ids < tokenizer.vocab)).all()
        assert isinstance(tokenizer.decode(ids), str)


@given(text=st.text(min_size=1, max_size=30))
def test_a_vocabulary_that_was_written_is_read_as_it_was(folder, text):
    CharTokenizer.from_text(text).save(folder / "characters.json")
    assert load(folder / "characters.json").decode(load(folder / "characters.json").encode(text)) == text


@given(content=st.binary(max_size=60) | damaged("Zwölf Böxkämpfer €\r\n".encode()))
def test_any_corpus_is_refused_or_its_text(folder, content):
    _put(folder / "corpus.txt", content)
    if corpus := _answer(load_corpus, folder / "corpus.txt"):
        assert corpus.text.encode() == content
        assert corpus.text
