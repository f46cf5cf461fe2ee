"""Hugging Face folders: what transformers writes is read here, what is written here transformers reads."""

import json
import struct
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from llama.machine.safe_files import write_atomically
from llama.model import checkpoint
from llama.model.config import LlamaConfig
from llama.model.llama import Llama
from llama.text.tokenizer import CharTokenizer
from tests.judge.assertions import assert_close, assert_identical
from tests.judge.subject import word
from tests.judge.tolerances import tolerance
from tests.session.running import programs

SIZES = {"vocab_size": 23, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4}
ROPE3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
# What transformers is asked for, and how its folder is written.
KINDS = {
    "untied": ({}, torch.float32, {}),
    "tied": ({"tie_word_embeddings": True}, torch.float32, {}),
    "grouped heads": ({"num_key_value_heads": 2}, torch.float32, {}),
    "one key head": ({"num_key_value_heads": 1}, torch.float32, {}),
    "head_dim of its own": ({"head_dim": 6, "num_key_value_heads": 2}, torch.float32, {}),
    "llama3 rope": ({"rope_parameters": ROPE3}, torch.float32, {}),
    "theta and eps": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}, "rms_norm_eps": 0.01},
        torch.float32,
        {},
    ),
    "shards": ({"num_hidden_layers": 12}, torch.float32, {"max_shard_size": "20KB"}),
    "tied shards": ({"tie_word_embeddings": True}, torch.float32, {"max_shard_size": "5KB"}),
    "bfloat16": ({"num_key_value_heads": 2}, torch.bfloat16, {}),
    "float16": ({"num_key_value_heads": 2}, torch.float16, {}),
}
IDS = torch.randint(23, (2, 40), generator=torch.Generator().manual_seed(0))


def _theirs(more):
    """A model of transformers whose weights are large, so that every difference shows."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**(SIZES | more))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.2)
    return model


def _assert_same_logits(ours, theirs):
    """Computed in float64 from the weights as they were read: only the rotations are rounded, in float32."""
    with torch.no_grad():
        mine, others = ours.double()(IDS), theirs.double()(IDS).logits
    difference = (mine - others).abs().max().item()
    print(f"largest difference {difference:.1e} in logits up to {others.abs().max():.1f}")
    assert_close(mine, others, within=tolerance(torch.float32))


@pytest.mark.parametrize(("more", "dtype", "how"), KINDS.values(), ids=KINDS)
def test_what_transformers_writes_has_the_same_logits_here(tmp_path, more, dtype, how):
    transformers = pytest.importorskip("transformers")
    _theirs(more).to(dtype).save_pretrained(tmp_path, **how)
    # Read again: `to` has rounded the rotations too, which no file holds.
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    assert (tmp_path / "model.safetensors").is_file() != bool(how)
    ours = Llama.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in ours.parameters()} == {dtype}
    assert ours.config.max_position_embeddings == theirs.config.max_position_embeddings
    assert ours.config.eos_token_id == theirs.config.eos_token_id == 2
    _assert_same_logits(ours, theirs)


@pytest.mark.parametrize(("more", "dtype", "how"), KINDS.values(), ids=KINDS)
def test_what_is_written_here_has_the_same_logits_in_transformers(tmp_path, more, dtype, how):
    transformers = pytest.importorskip("transformers")
    original = _theirs(more).to(dtype)
    original.save_pretrained(tmp_path / "theirs", **how)
    ours = Llama.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    theirs, report = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values())
    assert theirs.dtype == dtype
    # transformers 4 makes float32 of all that does not say so.
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["torch_dtype"] == word(dtype)
    for field in ("rope_parameters", "rms_norm_eps", "max_position_embeddings", "eos_token_id", "bos_token_id"):
        assert getattr(theirs.config, field) == getattr(original.config, field)
    _assert_same_logits(ours, theirs.eval())


def test_a_config_as_transformers_4_writes_it_gives_the_same_model(tmp_path):
    theirs = _theirs({"rope_parameters": ROPE3})
    theirs.save_pretrained(tmp_path)
    expected = Llama.from_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    scaling = fields.pop("rope_parameters")
    fields |= {"rope_theta": scaling.pop("rope_theta"), "rope_scaling": scaling, "torch_dtype": fields.pop("dtype")}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert Llama.from_pretrained(tmp_path).config == expected.config


@pytest.mark.parametrize("name", ["naive", "vectorized", "fused"])
def test_any_implementation_computes_what_was_read(folder, name):
    model = Llama.from_pretrained(folder, name)
    assert model.layers.name == name
    with torch.no_grad():
        assert_close(model(IDS[:1, :9]), Llama.from_pretrained(folder)(IDS[:1, :9]))


def test_a_model_that_was_read_can_be_trained_and_its_file_stays_as_it_is(folder):
    before = (folder / "model.safetensors").read_bytes()
    model = Llama.from_pretrained(folder)
    model(IDS).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= parameter.grad
    assert (folder / "model.safetensors").read_bytes() == before


# What a checkpoint says and this model does not have, and what is wrong with one.


@pytest.fixture
def folder(tmp_path):
    """A checkpoint with grouped heads and a head of its own."""
    torch.manual_seed(0)
    Llama(LlamaConfig(**SIZES, num_key_value_heads=2)).save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model_type": "mistral"}, "model_type 'mistral' is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({"attention_bias": True}, "attention_bias True is not supported"),
        ({"mlp_bias": True}, "mlp_bias True is not supported"),
        ({"attention_dropout": 0.1}, "attention_dropout 0.1 is not supported"),
        ({"pretraining_tp": 2}, "pretraining_tp 2 is not supported"),
        ({"is_causal": False}, "is_causal False is not supported"),
        ({"sliding_window": 4096}, "sliding_window 4096 is not supported"),
        ({"quantization_config": {"bits": 4}}, "quantization_config {'bits': 4} is not supported"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "only rope_type llama3 is supported, got 'linear'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "only rope_type llama3 is supported, got 'yarn'"),
        ({"rope_parameters": ROPE3 | {"partial_rotary_factor": 0.5}}, "'partial_rotary_factor' is not supported"),
        ({"rope_parameters": ROPE3 | {"factor": -1}}, "rope_scaling: factor must be positive, got -1"),
        ({"rope_parameters": ROPE3 | {"low_freq_factor": 9}}, "low_freq_factor must be below high_freq_factor, got 9"),
        ({"rope_scaling": {"rope_type": "default", "factor": 2.0}}, "'factor' of a default rope is not supported"),
        (
            {"rope_scaling": ROPE3, "original_max_position_embeddings": 8},
            "original_max_position_embeddings is 8, but 16 in rope_scaling",
        ),
        ({"rope_parameters": ROPE3, "rope_scaling": ROPE3}, "rope_parameters and rope_scaling cannot both be given"),
        ({"rope_parameters": [1]}, r"rope_parameters must be an object, got \[1\]"),
        ({"rope_theta": 0}, "rope_theta must be positive, got 0"),
        ({"rope_theta": float("nan")}, "rope_theta must be a finite number, got nan"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps must be a finite number, got '1e-5'"),
        ({"vocab_size": None}, "vocab_size must be at least 1, got None"),
        ({"vocab_size": -5}, "vocab_size must be at least 1, got -5"),
        ({"num_hidden_layers": True}, "num_hidden_layers must be at least 1, got True"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers is 1000000000000, but there are 21 tensors in all"),
        ({"hidden_size": 10**15}, r"should be \[23, 1000000000000000\] and is \[23, 32\]"),
        ({"num_key_value_heads": 3}, "num_key_value_heads must divide num_attention_heads, got 3 and 4"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false, got 'no'"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is true, but lm_head.weight differs from model.embed_t"),
        ({"eos_token_id": "</s>"}, "eos_token_id must be the id of a token, got '</s>'"),
        ({"eos_token_id": [2, 0.5]}, r"eos_token_id must be the id of a token, got \[2, 0.5\]"),
    ],
)
def test_a_config_that_asks_for_what_is_not_there_is_refused_by_name_and_value(folder, fields, sentence):
    _change_config(folder, fields)
    _assert_refused(folder, sentence)


@pytest.mark.parametrize("field", ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"])
def test_a_config_without_a_size_is_refused(folder, field):
    fields = json.loads((folder / "config.json").read_text())
    del fields[field]
    (folder / "config.json").write_text(json.dumps(fields))
    _assert_refused(folder, f"config.json: {field} is missing")


@pytest.mark.parametrize(
    ("name", "tensor", "sentence"),
    [
        ("model.layers.0.self_attn.q_proj.bias", torch.zeros(32), r"q_proj.bias' should be absent and is \[32\]"),
        ("model.norm.weight", None, r"'model.norm.weight' should be \[32\] and is absent"),
        ("lm_head.weight", None, r"'lm_head.weight' should be \[23, 32\] and is absent"),
        ("model.norm.weight", torch.zeros(1, 32), r"'model.norm.weight' should be \[32\] and is \[1, 32\]"),
        ("model.norm.weight", torch.zeros(32, dtype=torch.int8), "'model.norm.weight' is I8; weights are F64, F32"),
        ("model.norm.weight", torch.zeros(32).half(), "weights must be of one dtype, got 'model.norm.weight' F16, "),
        ("model.norm.weight", torch.ones(32) * torch.nan, r"model.norm.weight\[0\] is nan, weights must be finite"),
        ("lm_head.weight", torch.full((23, 32), -torch.inf), r"lm_head.weight\[0, 0\] is -inf, weights must be finite"),
        ("evil\nname", torch.zeros(1), r"'evil\\nname' should be absent and is \[1\]"),
    ],
)
def test_tensors_that_the_config_does_not_foresee_are_refused_by_name(folder, name, tensor, sentence):
    _change_tensors(folder, {name: tensor})
    _assert_refused(folder, sentence)


def test_a_head_that_is_stored_though_it_is_tied_is_read_where_it_is_the_embedding(folder):
    held = _change_tensors(folder, {})
    _change_tensors(folder, {"lm_head.weight": held["model.embed_tokens.weight"].clone()})
    _change_config(folder, {"tie_word_embeddings": True})
    assert "lm_head.weight" not in Llama.from_pretrained(folder).state_dict()


def test_a_tied_matrix_may_be_stored_under_the_name_of_the_head(folder):
    expected = Llama.from_pretrained(folder).model.embed_tokens.weight
    _change_config(folder, {"tie_word_embeddings": True})
    _change_tensors(folder, {"lm_head.weight": expected.detach().clone(), "model.embed_tokens.weight": None})
    assert_identical(Llama.from_pretrained(folder).model.embed_tokens.weight.detach(), expected.detach())


@pytest.mark.parametrize("field", ["rope_scaling", "rope_parameters"])
def test_the_theta_beside_the_type_of_the_rope_is_that_of_the_model(folder, field):
    _change_config(folder, {field: {"rope_type": "default", "rope_theta": 500.0}})
    config = Llama.from_pretrained(folder).config
    assert (config.rope_theta, config.rope_scaling) == (500.0, None)


def test_the_ends_of_a_text_are_those_of_generation_config_where_it_has_some(folder):
    _change_config(folder, {"eos_token_id": 2})
    (folder / "generation_config.json").write_text('{"eos_token_id": [3, 4]}')
    assert Llama.from_pretrained(folder).config.ends == (3, 4)
    (folder / "generation_config.json").write_text("{}")
    assert Llama.from_pretrained(folder).config.ends == (2,)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda model: model.model.norm.weight.data.fill_(torch.nan),
            r"model.norm.weight\[0\] is nan, weights must be f",
        ),
        (lambda model: model.lm_head.half(), "weights must be of one dtype of F64, F32, F16, BF16, got .* float16"),
    ],
    ids=["not finite", "two dtypes"],
)
def test_weights_that_could_not_be_read_again_are_not_written(folder, spoil, sentence):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = Llama.from_pretrained(folder)
    spoil(model)
    with pytest.raises(ValueError, match=sentence):
        model.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_rotation_frequencies_that_older_checkpoints_store_follow_from_the_config(folder):
    _change_tensors(folder, {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert "model.norm.weight" in Llama.from_pretrained(folder).state_dict()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "cannot be read"),
        (b"\xff" * 8 + b"{}", "cannot be read"),
        ((10**9).to_bytes(8, "little") + b"{}", "cannot be read"),
        ((2).to_bytes(8, "little") + b"{}", "num_hidden_layers is 2, but there are 0 tensors in all"),
        (
            (92).to_bytes(8, "little")
            + b'{"model.norm.weight":{"dtype":"F32","shape":[99999999,9999999],"data_offsets":[0,4]}}'.ljust(92)
            + bytes(4),
            "cannot be read",
        ),
    ],
    ids=["empty", "header of 2^64 bytes", "header beyond the file", "no tensors", "a shape that lies"],
)
def test_a_file_whose_header_lies_is_refused(folder, content, sentence):
    (folder / "model.safetensors").write_bytes(content)
    _assert_refused(folder, sentence)


@pytest.fixture
def shards(tmp_path):
    """A checkpoint in two files: the embedding alone, and everything else."""
    torch.manual_seed(0)
    folder = tmp_path / "shards"
    model = Llama(LlamaConfig(**SIZES))
    model.save_pretrained(folder)
    tensors = _change_tensors(folder, {})
    (folder / "model.safetensors").unlink()
    places = {name: "b.safetensors" if "layers" in name or "norm" in name else "a.safetensors" for name in tensors}
    for shard in set(places.values()):
        part = {name: t for name, t in tensors.items() if places[name] == shard}
        safetensors.torch.save_file(part, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder, places, model


def test_every_tensor_of_every_shard_is_read(shards):
    folder, _, model = shards
    read = Llama.from_pretrained(folder).state_dict()
    assert read.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert_identical(read[name], tensor)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model.norm.weight": "c.safetensors"}, "'model.norm.weight' is in 'b.safetensors', but listed 'c.safeten"),
        ({"model.norm.weight": None}, "'model.norm.weight' is in 'b.safetensors', but listed nowhere"),
        ({"model.extra": "a.safetensors"}, "'model.extra' is not in 'a.safetensors'"),
        ({"model.extra": "../a.safetensors"}, "'../a.safetensors' is not the name of a file of the same folder"),
        ({"model.extra": 3}, "weight_map must map the names of tensors to those of files"),
        ({"model.extra": "z.safetensors"}, "has no z.safetensors"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(shards, change, sentence):
    folder, places, _ = shards
    listed = {name: shard for name, shard in (places | change).items() if shard is not None}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    _assert_refused(folder, sentence)


def test_a_shard_that_is_missing_is_named(shards):
    folder, _, _ = shards
    (folder / "b.safetensors").unlink()
    _assert_refused(folder, "has no b.safetensors")


# Writing.


def _held(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _no_room(path):
    path.write_bytes(b"half of")
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("failing", ["a", "b"])
def test_files_are_replaced_together_or_not_at_all(tmp_path, failing):
    write_atomically(tmp_path, {name: lambda path: path.write_text("earlier") for name in "ab"})
    writers = {name: _no_room if name == failing else lambda path: path.write_text("later") for name in "ab"}
    with pytest.raises(OSError, match=r"^checkpoint: .* cannot be written: No space left on device$"):
        write_atomically(tmp_path, writers)
    assert _held(tmp_path) == {"a": b"earlier", "b": b"earlier"}
    write_atomically(tmp_path, {name: lambda path: path.write_text("later") for name in "ab"})
    assert _held(tmp_path) == {"a": b"later", "b": b"later"}


def test_a_file_has_its_name_only_when_it_is_on_the_disk(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr("os.fsync", lambda _: events.append(sorted(path.name[:2] for path in tmp_path.iterdir())))
    write_atomically(tmp_path, {name: lambda path: path.write_text("x") for name in "ab"})
    folders = [["a", "b"]] if sys.platform != "win32" else []
    assert events == [[".a"], [".a", ".b"], *folders]


def test_a_disk_that_is_full_leaves_the_earlier_checkpoint_whole(folder):
    resource = pytest.importorskip("resource")
    before = _held(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    model = Llama(LlamaConfig(**SIZES, num_key_value_heads=2))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"^checkpoint: .* cannot be written: .*$"):
            checkpoint.save(folder, model, CharTokenizer("abc"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert _held(folder) == before


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"^checkpoint: .* cannot be written: .*$"):
        Llama(LlamaConfig(**SIZES)).save_pretrained(tmp_path / "file" / "checkpoint")


# How much memory is used.

PEAK = """
import sys
from pathlib import Path
from llama.model.llama2c import load_llama2c
from llama.model.llama import Llama

def held(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

read = {"folder": Llama.from_pretrained, "llama2c": load_llama2c}[sys.argv[1]]
read(sys.argv[2])
Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
before = held("VmRSS")
model = read(sys.argv[3])
print(held("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to tell the peak of a process")
@pytest.mark.parametrize("kind", ["folder", "llama2c"])
def test_reading_takes_no_more_memory_than_twice_the_file(tmp_path, kind):
    sizes = {}
    for name, width in (("small", 16), ("large", 512)):
        if kind == "folder":
            config = LlamaConfig(vocab_size=5000, hidden_size=width, num_hidden_layers=8, intermediate_size=3 * width)
            Llama(config).bfloat16().save_pretrained(tmp_path / name)
            sizes[name] = (tmp_path / name / "model.safetensors").stat().st_size
        else:
            header = struct.pack("<7i", width, 3 * width, 4, 4, 4, 5000, 16)
            floats = 5000 * width + 4 * (13 * width * width + 2 * width) + width + 16 * width // 4
            sizes[name] = (tmp_path / name).write_bytes(header + bytes(4 * floats))
    done = programs.run("-c", PEAK, kind, str(tmp_path / "small"), str(tmp_path / "large"))
    done.check_returncode()
    peak = int(done.stdout)
    assert sizes["large"] <= peak <= 2 * sizes["large"]


def _change_config(folder, fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def _change_tensors(folder, tensors):
    """Put these tensors into the file, and take out those that are None; return what it holds then."""
    path = folder / "model.safetensors"
    held = safetensors.torch.load(path.read_bytes()) | tensors
    held = {name: tensor for name, tensor in held.items() if tensor is not None}
    safetensors.torch.save_file(held, path)
    return held


def _assert_refused(folder, sentence):
    with pytest.raises(ValueError, match=sentence) as refused:
        Llama.from_pretrained(folder)
    assert str(refused.value).startswith("checkpoint: ")
    assert len(str(refused.value).splitlines()) == 1
