"""The Llama of transformers, and its schedule and logits processors."""

import functools
import math
from types import SimpleNamespace

import torch
import transformers
from torch import nn
from torch.func import functional_call
from transformers.generation import logits_process
from transformers.models.llama import modeling_llama

from llama import implementation
from llama.implementation import tensors
from tests.peers.formulas._shared import visible_keys, widened

# Left out: rope_frequencies and llama3_frequencies, which it computes in float32 and the contract in float64; and
# sample, which it draws by torch's own generator.

_OURS = implementation.load("vectorized")


def _ours_where_theirs_differs(layer):
    """The layer as it is; but ours in float64, of which transformers makes float32, and for an empty batch."""
    ours = getattr(_OURS, layer.__name__)

    @functools.wraps(layer)
    def either(*args, **kwargs):
        # The first float tensor: frequencies in float64 do not make a call one in float64.
        first = next(t for t in tensors((args, kwargs)) if t.is_floating_point())
        return (ours if first.dtype == torch.float64 or args[0].shape[0] == 0 else layer)(*args, **kwargs)

    return either


def _on_meta(make, *args):
    with torch.device("meta"):
        return make(*args)


@_ours_where_theirs_differs
def rms_norm(x, weight, eps=1e-5):
    # With a weight of another dtype it gives that one's.
    norm = _on_meta(modeling_llama.LlamaRMSNorm, x.shape[-1], eps)
    return functional_call(norm, {"weight": weight.to(x.dtype)}, (x,))


def swiglu(x, w_gate, w_up, w_down):
    d_ff, d_model = w_gate.shape
    sizes = {"hidden_size": d_model, "intermediate_size": d_ff}
    mlp = _on_meta(modeling_llama.LlamaMLP, SimpleNamespace(**sizes, mlp_bias=False, hidden_act="silu"))
    weights = {"gate_proj.weight": w_gate, "up_proj.weight": w_up, "down_proj.weight": w_down}
    return functional_call(mlp, weights, (x,))


def _cos_and_sin(x, positions, frequencies):
    """As LlamaRotaryEmbedding makes them, from frequencies that are given."""
    rotary = SimpleNamespace(inv_freq=frequencies, attention_scaling=1.0, rope_type="default")
    return modeling_llama.LlamaRotaryEmbedding.forward(rotary, x, positions if positions.ndim == 2 else positions[None])


def rope(x, positions, frequencies):
    cos, sin = _cos_and_sin(x, positions, frequencies)
    return modeling_llama.apply_rotary_pos_emb(x, x, cos, sin)[0]


def _additive(visible, dtype):
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(~visible, -math.inf)


@_ours_where_theirs_differs
def attention(q, k, v, causal=True, mask=None):
    """A query without keys would be NaN: there it sees all, and what it gives is replaced by zeros.

    Its scores are in the dtype of q, where those in float16 end at 65504; so float16 comes as float32.
    """
    if q.dtype == torch.float16:
        return attention(q.float(), k.float(), v.float(), causal, mask).half()
    visible = visible_keys(q, k, causal, mask)
    some = visible.any(dim=-1, keepdim=True)
    module = SimpleNamespace(num_key_value_groups=q.shape[1] // k.shape[1], training=False)
    bias = _additive(visible | ~some, q.dtype)
    out, _ = modeling_llama.eager_attention_forward(module, q, k, v, bias, q.shape[-1] ** -0.5)
    return torch.where(some, out.transpose(1, 2), 0.0)


def _config(d_model, n_heads, n_kv_heads, head_dim, **more):
    config = transformers.LlamaConfig(attn_implementation="eager", bos_token_id=None, eos_token_id=None, **more)
    # A head_dim of one's own needs no d_model that n_heads divides, but the constructor refuses it.
    config.hidden_size, config.head_dim = d_model, head_dim
    config.num_attention_heads, config.num_key_value_heads = n_heads, n_kv_heads
    return config


def _causal(x):
    ones = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
    return _additive(ones.tril(), x.dtype)


@_ours_where_theirs_differs
def self_attention(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    config = _config(x.shape[-1], n_heads, n_kv_heads, w_q.shape[0] // n_heads)
    module = _on_meta(modeling_llama.LlamaAttention, config, 0)
    weights = {f"{name}_proj.weight": w for name, w in zip("qkvo", (w_q, w_k, w_v, w_o), strict=True)}
    given = {"position_embeddings": _cos_and_sin(x, positions, frequencies), "attention_mask": _causal(x)}
    return functional_call(module, weights, (x,), given)[0]


@_ours_where_theirs_differs
def decoder_layer(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    d_ff, head_dim = weights["mlp.gate_proj.weight"].shape[0], weights["self_attn.q_proj.weight"].shape[0] // n_heads
    config = _config(x.shape[-1], n_heads, n_kv_heads, head_dim, intermediate_size=d_ff, rms_norm_eps=eps)
    layer = _on_meta(modeling_llama.LlamaDecoderLayer, config, 0)
    given = {"position_embeddings": _cos_and_sin(x, positions, frequencies), "attention_mask": _causal(x)}
    return functional_call(layer, dict(weights), (x,), given)


@_ours_where_theirs_differs
def llama(token_ids, weights, config):
    """The head is always given, as its own or as the embedding."""
    theirs = _config(
        config.hidden_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        intermediate_size=config.intermediate_size,
        rms_norm_eps=config.rms_norm_eps,
        vocab_size=config.vocab_size,
        num_hidden_layers=config.num_hidden_layers,
        rope_parameters=(config.rope_scaling or {"rope_type": "default"}) | {"rope_theta": config.rope_theta},
    )
    with torch.random.fork_rng():  # its first weights are drawn, and not used
        model = transformers.LlamaForCausalLM(theirs).to(token_ids.device).eval()
    weights = {"lm_head.weight": weights["model.embed_tokens.weight"]} | dict(weights)
    return functional_call(model, weights, (token_ids,), {"use_cache": False}).logits


def cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr):
    """Its warm-up starts at zero, one step earlier; and it would rise again after total_steps, so the step is held."""
    end = max(total_steps, warmup_steps + 1)
    at = step + 1 if step < warmup_steps else end if step >= total_steps else step
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=peak_lr)
    schedule = transformers.get_cosine_with_min_lr_schedule_with_warmup(optimizer, warmup_steps, end, min_lr=min_lr)
    return peak_lr * schedule.lr_lambdas[0](at)


def filter_logits(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """generate() makes the logits float32, two-dimensional, and takes the argmax where the temperature is 0.

    Of equally likely tokens its top_p drops the first ones, so it gets the ids in reverse.
    """
    scores = widened(logits).flip(-1).reshape(-1, logits.shape[-1])
    if temperature == 0:
        last = scores.shape[-1] - 1
        first = last - scores.flip(-1).argmax(dim=-1, keepdim=True)
        scores = scores.where(torch.arange(last + 1, device=scores.device) == first, -math.inf)
    warpers = [logits_process.TemperatureLogitsWarper(float(temperature))] if temperature else []
    warpers += [logits_process.TopKLogitsWarper(top_k)] if top_k is not None else []
    warpers += [logits_process.TopPLogitsWarper(top_p)] if top_p is not None else []
    warpers += [logits_process.MinPLogitsWarper(min_p)] if min_p is not None else []
    for warper in warpers:
        scores = warper(None, scores)
    return scores.reshape(logits.shape).flip(-1).to(logits.dtype)
