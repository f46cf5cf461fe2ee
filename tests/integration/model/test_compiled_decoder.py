"""Programs: layer by layer they compute what the model does, however its matrices are held."""

import copy
import dataclasses
import shutil

import pytest
import torch

from llama.model import compiled_decoder, programs
from llama.model.compiled_decoder import CompiledDecoder
from llama.model.config import LlamaConfig
from llama.model.decoder import Decoder
from llama.model.kv_cache import KVCache
from llama.model.llama import Llama
from llama.model.programs import HALF, Matrix
from llama.model.quantized import WORD, Quantized, group_of, quantized
from tests.judge.assertions import assert_close
from tests.judge.tolerances import tolerance

D_OUT, D_IN = 24, 192
NO_COMPILER = pytest.mark.skipif(not shutil.which("c++"), reason="there is no C++ compiler")
OF_TORCH = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # about itself, as it imports its compiler
OF = LlamaConfig(
    vocab_size=37,
    hidden_size=64,
    intermediate_size=96,
    num_attention_heads=4,
    num_key_value_heads=2,
    num_hidden_layers=2,
    head_dim=12,
    rms_norm_eps=0.1,
)


def _codes(bits, d_in=D_IN):
    limit, groups = 2 ** (bits - 1) - 1, d_in // group_of(d_in, bits)
    codes = torch.randint(-limit, limit + 1, (D_OUT, d_in), dtype=torch.int8)
    return Quantized(codes, torch.rand(D_OUT, groups), bits)


@pytest.mark.parametrize("bits", [0, HALF, 8, 4], ids=["float32", "bfloat16", "8 bits", "4 bits"])
@pytest.mark.parametrize("with_norm", [False, True], ids=["alone", "behind a norm"])
def test_a_matrix_is_multiplied_as_it_is_held(bits, with_norm):
    torch.manual_seed(1)
    weight, norm = torch.randn(D_OUT, D_IN), torch.rand(D_IN) + 0.5 if with_norm else None
    held = weight
    if bits in (8, 4):
        codes = _codes(bits)
        held, weight = codes.stand_in(), codes.dequantized()
    matrix = Matrix.of([held, held], norm, torch.float32, half=bits == HALF)
    assert matrix.bits == bits
    folded = weight if norm is None else weight * norm
    folded = folded.bfloat16() if bits == HALF else folded
    x = torch.randn(D_IN)
    expected = (folded.double() @ x.double()).repeat(2)
    assert_close(matrix @ x, expected, dtype=torch.float32, within=tolerance(torch.float32))


@pytest.mark.parametrize("bits", [8, 4])
def test_no_code_of_a_word_changes_another(bits):
    limit, parts = 2 ** (bits - 1) - 1, WORD // bits
    codes = torch.cartesian_prod(*[torch.tensor([-limit, 0, limit], dtype=torch.int8)] * parts)
    held = Quantized(codes, torch.ones(len(codes), 1), bits).stand_in()
    matrix = Matrix.of([held], None, torch.float32, half=False)
    for j, alone in enumerate(torch.eye(parts)):
        assert torch.equal(matrix @ alone, codes[:, j].float())


@pytest.mark.parametrize(("bits", "d_in"), [(HALF, 7), (8, 6), (4, 12)])
def test_what_does_not_fill_words_is_held_as_floats(bits, d_in):
    torch.manual_seed(1)
    codes = _codes(8 if bits == HALF else bits, d_in)
    held = codes.dequantized() if bits == HALF else codes.stand_in()
    matrix = Matrix.of([held], None, torch.float32, half=bits == HALF)
    assert (matrix.bits, matrix.held[0].dtype) == (0, torch.float32)
    x = torch.randn(d_in)
    assert_close(matrix @ x, codes.dequantized() @ x)


@NO_COMPILER
@OF_TORCH
@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "layers", "tied"), [("float32", 2, False), ("bfloat16", 1, True), (8, 3, True), (4, 2, False)]
)
def test_each_token_has_the_logits_that_it_has_in_a_pass_over_all(kind, layers, tied):
    torch.manual_seed(0)
    of = dataclasses.replace(OF, num_hidden_layers=layers, tie_word_embeddings=tied)
    model, ids = Llama(of), torch.arange(8)[None]
    for norm in (p for p in model.parameters() if p.ndim == 1):
        norm.uniform_(0.5, 1.5)
    if kind in (8, 4):
        model = quantized(model, kind)
    if kind == "bfloat16":
        model.bfloat16()
    expected = copy.deepcopy(model).float()(ids)[0]
    cache, decoder = KVCache(of, 1, next(model.parameters()).dtype), CompiledDecoder(model)
    model(ids[:, :2], cache)
    rows = [decoder(token, cache) for token in ids[0, 2:].tolist()]
    assert cache.length == 8
    assert_close(torch.stack(rows), expected[2:], within=tolerance(torch.bfloat16) if kind == "bfloat16" else None)


@NO_COMPILER
@OF_TORCH
@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("held", "room"), [(0, 1), (0, 9), (1, 2), (600, 601), (600, 1000)], ids=str)
def test_a_token_attends_to_any_number_of_positions_in_a_cache_of_any_size_and_dtype(held, room, dtype):
    torch.manual_seed(0)
    of = dataclasses.replace(OF, max_position_embeddings=1000, num_hidden_layers=1)
    model, cache = Llama(of), KVCache(of, 1, dtype, positions=room)
    cache.memory.normal_()
    cache.claim(held)
    wide = KVCache(of, 1, positions=room)
    wide.memory.copy_(cache.memory)
    wide.claim(held)
    within = tolerance(dtype) if dtype == torch.bfloat16 else None
    assert_close(CompiledDecoder(model)(3, cache), Decoder(model)(3, wide), within=within)
    assert_close(cache.memory.float(), wide.memory, within=within)  # the new row is written, and no other one


@NO_COMPILER
@OF_TORCH
@torch.no_grad()
@pytest.mark.parametrize(("kind", "layers", "kv_heads"), [("float32", 2, 4), (8, 1, 2), ("bfloat16", 1, 1)])
@pytest.mark.parametrize("held", [0, 70])
def test_several_tokens_at_a_time_have_the_logits_of_one_by_one(held, kind, layers, kv_heads):
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": layers, "num_key_value_heads": kv_heads, "max_position_embeddings": 80}
    model = Llama(dataclasses.replace(OF, **sizes))
    of = quantized(model, kind) if kind == 8 else model.to(getattr(torch, kind))
    within = tolerance(torch.bfloat16) if kind == "bfloat16" else None
    cache, tokens = KVCache(of.config, 1, next(of.parameters()).dtype, positions=75), [3, 1, 36]
    cache.memory.normal_()
    cache.claim(held)
    alone = copy.deepcopy(cache)
    decoder = CompiledDecoder(of, positions=held + 5, tokens=3)
    assert_close(decoder.several(tokens, cache), Decoder(of).several(tokens, alone), within=within)
    assert cache.length == held + 3
    assert_close(cache.memory, alone.memory, within=within)
    with pytest.raises(ValueError, match="decoder: it was made for 3 tokens at a time, got 2"):
        decoder.several(tokens[:2], cache)
    with pytest.raises(IndexError, match="decoder: token must lie in 0..36, got 37"):
        decoder.several([3, 37, 1], cache)
    with pytest.raises(ValueError, match=f"{held + 6} positions do not fit into"):
        decoder.several(tokens, cache)
    assert cache.length == held + 3


@NO_COMPILER
@OF_TORCH
def test_no_position_is_taken_where_no_program_can_be_made_for_the_cache(monkeypatch):
    decoder, cache = CompiledDecoder(Llama(OF)), KVCache(OF, 1, torch.float64)

    def fail(*_):
        raise RuntimeError("no space is left")

    monkeypatch.setattr(compiled_decoder, "program", fail)
    with pytest.raises(RuntimeError, match="no space is left"):
        decoder(3, cache)
    assert cache.length == 0


@NO_COMPILER
@OF_TORCH
def test_programs_are_kept_on_disk():
    from torch._dynamo.utils import counters  # seconds, for this test alone

    CompiledDecoder(Llama(OF))
    programs._compiled.cache_clear()  # as in another process
    before = dict(counters["inductor"])
    CompiledDecoder(Llama(OF))
    assert counters["inductor"]["fxgraph_cache_hit"] - before.get("fxgraph_cache_hit", 0) == 3
    assert counters["inductor"]["fxgraph_cache_miss"] == before.get("fxgraph_cache_miss", 0)


@NO_COMPILER
@OF_TORCH
@torch.no_grad()
@pytest.mark.parametrize("bits", [None, 8])
def test_a_decoder_does_not_see_what_becomes_of_the_model(bits):
    model = Llama(OF)
    of = quantized(model, bits) if bits else model
    decoder = CompiledDecoder(of)
    before = decoder(3, KVCache(OF, 1))
    for tensor in (*of.parameters(), *of.buffers()):
        tensor += 1
    assert torch.equal(decoder(3, KVCache(OF, 1)), before)


@NO_COMPILER
@OF_TORCH
def test_what_is_refused_is_refused_in_the_same_words():
    decoder, cache = CompiledDecoder(Llama(OF), positions=2), KVCache(OF, 1, positions=2)
    with pytest.raises(IndexError, match="decoder: token must lie in 0..36, got 37"):
        decoder(37, cache)
    for token in (1, 2):
        decoder(token, cache)
    with pytest.raises(ValueError, match="cache: 3 positions do not fit into a context of 2"):
        decoder(3, cache)
    with pytest.raises(TypeError, match="decoder: it cannot be copied or pickled"):
        copy.copy(decoder)
