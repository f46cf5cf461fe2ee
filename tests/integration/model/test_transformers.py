"""The same weights give the same logits as in Hugging Face's Llama, an independent implementation."""

import pytest
import torch
import transformers

from llama.model.config import LlamaConfig
from llama.model.kv_cache import KVCache
from llama.model.llama import Llama
from tests.cases import target
from tests.judge.assertions import assert_close
from tests.judge.tolerances import angle_tolerance

BASE = {"vocab_size": 23, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
POSITIONS = 40
# Their norms and their angles are computed in float32, whatever the dtype of the model; so may be the layers' angles.
THEIRS = angle_tolerance(torch.arange(POSITIONS))
CONFIGS = {
    "as many key heads as query heads": {},
    "grouped heads": {"num_key_value_heads": 2},
    "one key head": {"num_key_value_heads": 1},
    "tied head": {"tie_word_embeddings": True},
    "head_dim that is not d_model over n_heads": {"head_dim": 6, "num_key_value_heads": 2},
    "another theta and eps": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rms_norm_eps": 0.1},
    "llama3 frequencies": {"rope_parameters": LLAMA3 | {"rope_theta": 10000.0}, "num_key_value_heads": 2},
}


def _pair(implementation, more):
    """Our model and theirs, with the same weights: large, so that every difference shows."""
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**BASE, **more))
    ours = Llama(LlamaConfig.from_hugging_face(theirs.config.to_dict()), implementation)
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in ours.parameters():
            torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3)
    missing = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert set(missing.missing_keys) <= {"lm_head.weight"}
    assert not missing.unexpected_keys
    theirs.tie_weights()
    # In the widest dtype: weights as large as these would magnify the roundings of a narrower one.
    return ours.to(target.DEVICE, target.EXACT[0]).eval(), theirs.to(target.EXACT[0]).eval()


@pytest.mark.parametrize("more", CONFIGS.values(), ids=CONFIGS)
@torch.no_grad()
def test_the_logits_are_those_of_transformers(implementation, more):
    ours, theirs = _pair(implementation, more)
    ids = torch.randint(23, (2, POSITIONS), generator=torch.Generator().manual_seed(0))
    assert_close(ours(ids.to(target.DEVICE)), theirs(ids).logits, within=THEIRS)


@torch.no_grad()
def test_decoding_with_our_cache_gives_the_logits_of_their_full_pass(implementation):
    ours, theirs = _pair(implementation.recomposed(), CONFIGS["grouped heads"])
    ids = torch.randint(23, (1, 20), generator=torch.Generator().manual_seed(0))
    cache = KVCache(ours.config, 1, target.EXACT[0], target.DEVICE)
    parts = [ours(part.to(target.DEVICE), cache) for part in (ids[:, :11], *ids[:, 11:].split(1, dim=1))]
    assert_close(torch.cat(parts, dim=1), theirs(ids).logits, within=THEIRS)


def test_rotations_may_stand_where_transformers_4_wrote_them_and_where_transformers_5_does():
    old = BASE | {"rope_theta": 500.0, "rope_scaling": LLAMA3}
    new = BASE | {"rope_parameters": LLAMA3 | {"rope_theta": 500.0}}
    assert LlamaConfig.from_hugging_face(old) == LlamaConfig.from_hugging_face(new)
    silent = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6}  # what transformers takes for them
    expected = LlamaConfig(**BASE, **silent, rope_theta=500.0, rope_scaling=LLAMA3)
    assert LlamaConfig.from_hugging_face(old) == expected
    without = BASE | {"rope_scaling": {"type": "default"}}
    assert LlamaConfig.from_hugging_face(without) == LlamaConfig(**BASE, **silent)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"model_type": "qwen3"}, "model_type 'qwen3' is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({"attention_bias": True}, "attention_bias True is not supported"),
        ({"sliding_window": 4096}, "sliding_window 4096 is not supported"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "only rope_type llama3 is supported, got 'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling lacks low_freq_factor, high_freq_"),
        ({"intermediate_size": 32.0}, "intermediate_size must be at least 1, got 32.0"),
    ],
)
def test_what_the_model_does_not_have_is_refused_and_not_ignored(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        LlamaConfig.from_hugging_face(BASE | wrong)
