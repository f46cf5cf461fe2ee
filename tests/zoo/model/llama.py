"""The bugs that people make in llama."""

import contextlib
import dataclasses

import torch

from llama import implementation
from tests.cases import weights
from tests.cases.case import Case


def probes():
    scaling = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 20}
    bridge = scaling | {"low_freq_factor": 2.0, "high_freq_factor": 7.0}
    changes = {}, {"rope_theta": 10.0}, {"rope_scaling": scaling}, {"rope_scaling": bridge}, {"rms_norm_eps": 0.1}
    (ids, weights, of), _ = _call(1, seed=6)
    tied = (ids, weights, dataclasses.replace(of, tie_word_embeddings=True)), {}

    def make(dtype=torch.float32):
        (ids, weights, of), _ = _call(2, seed=6)
        return ids, {name: w.to(dtype) for name, w in weights.items()}, of

    def in_another_order(llama):
        ids, weights, of = make()
        return llama(ids, dict(reversed(weights.items())), of)

    def after_an_update(llama):
        ids, weights, of = make()
        first = llama(ids, weights, of).clone()
        weights["model.layers.1.mlp.up_proj.weight"] = weights["model.layers.1.mlp.up_proj.weight"] * 5
        second = llama(ids, weights, of).clone()
        weights["model.layers.0.mlp.up_proj.weight"].mul_(3)
        third = llama(ids, weights, of).clone()
        weights.get("lm_head.weight", weights["model.embed_tokens.weight"]).mul_(2)
        return [first, second, third, llama(ids, weights, of)]

    def in_half_precision(llama):
        ids, weights, of = make(torch.float16)
        weights["model.embed_tokens.weight"].mul_(400)
        return llama(ids, weights, of)

    def other_weights_frozen(llama):
        ids, weights, of = make()
        asked = weights["model.norm.weight"].requires_grad_()
        y = llama(ids, weights, of)
        return torch.autograd.grad(y.square().sum(), asked) if y.requires_grad else None

    def long_after_short(llama):
        ids, weights, of = make()
        return [llama(ids[:, :3], weights, of), llama(ids, weights, of)]

    def negative_ids(llama):
        ids, weights, of = make()
        return llama(-1 - ids, weights, of)

    def after_an_error(llama):
        ids, weights, of = make(torch.float16)
        with contextlib.suppress(Exception):
            llama(ids, weights | {"model.norm.weight": None}, of)
        left = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        return str(left)

    more = [
        negative_ids,
        after_an_error,
        in_another_order,
        after_an_update,
        in_half_precision,
        other_weights_frozen,
        long_after_short,
    ]
    return [*[_call(2, seed, **change) for seed, change in enumerate(changes)], _call(11, seed=5), tied, *more]


def _call(n_layers, seed, **more):
    sizes = {"batch": 2, "seq": 7, "n_kv_heads": 1, "groups": 2, "half": 5, "d_model": 11, "d_ff": 3, "vocab": 13}
    sizes |= {"n_layers": n_layers, "n_heads": 2, "head_dim": 10}
    case = Case(sizes, torch.float64, seed)
    of = weights.config(case, **more)
    return (case.integers("batch seq", case.vocab), weights.model_weights(case, of), of), {}


LAYERS = implementation.load("vectorized")


def no_last_norm(token_ids, weights, config):
    """the norm between the last layer and the head is missing.

    Tempting: each layer has its norms already, and this one belongs to none.
    Seen: vllm-project/speculators#313.
    """
    return _llama(token_ids, weights, config, last_norm=False)


def last_norm_after_each_layer(token_ids, weights, config):
    """the last norm is applied after every layer, and not only after the last.

    Tempting: one more level of indentation, and it stands in the loop.
    """
    x = None
    for number in range(config.num_hidden_layers):
        x = _llama(token_ids, weights, config, order=[number], head=False, x=x)
    return _llama(token_ids, weights, config, order=[], last_norm=False, x=x)


def head_always_tied(token_ids, weights, config):
    """the head is the embedding even where lm_head.weight has been given.

    Tempting: GPT-2 ties the two, and so do the smallest Llamas.
    Seen: deepspeedai/DeepSpeed#4088.
    """
    return _llama(token_ids, weights, config, head=weights["model.embed_tokens.weight"])


def theta_fixed(token_ids, weights, config):
    """rope_theta is always 10000, whatever the config says.

    Tempting: it is 10000 in the first two Llamas, and a short text hardly shows it.
    Seen: karpathy/llama2.c#356.
    """
    frequencies = LAYERS.rope_frequencies(config.head_dim, 10000.0)
    return _llama(token_ids, weights, config, frequencies=_scaled(frequencies, config))


def rope_scaling_ignored(token_ids, weights, config):
    """the rope_scaling of the config is not applied.

    Tempting: the weights load, nothing fails, and only a long text shows it.
    Seen: Blaizzy/mlx-vlm#1710.
    """
    frequencies = LAYERS.rope_frequencies(config.head_dim, config.rope_theta)
    return _llama(token_ids, weights, config, frequencies=frequencies)


def eps_fixed(token_ids, weights, config):
    """eps is 1e-5 in every norm, whatever rms_norm_eps says.

    Tempting: each norm has a default, and 1e-5 is often the right one.
    Seen: ggml-org/llama.cpp#2373 (there it was 1e-6).
    """
    return _llama(token_ids, weights, config, eps=1e-5)


def layers_in_alphabetical_order(token_ids, weights, config):
    """the layers are sorted by name, so that layer 10 comes before layer 2.

    Tempting: sorted() on the names of a checkpoint is right up to ten layers.
    Seen: local-inference-lab/vllm#454.
    """
    numbers = {name.split(".")[2] for name in weights if name.startswith("model.layers.")}
    return _llama(token_ids, weights, config, order=sorted(numbers))


_tables = {}


def frequencies_of_the_first_model(token_ids, weights, config):
    """the rotation frequencies are kept by head_dim alone, so a second model turns with the theta of the first.

    Tempting: they never change within a model, so one keeps them, and a program seldom has two models.
    """
    if config.head_dim not in _tables:
        _tables[config.head_dim] = _scaled(LAYERS.rope_frequencies(config.head_dim, config.rope_theta), config)
    return _llama(token_ids, weights, config, frequencies=_tables[config.head_dim])


def tied_by_the_config(token_ids, weights, config):
    """a head that is given is left unused where the config says that it is tied.

    Tempting: tie_word_embeddings says it; but a checkpoint that brings a head means it to be used.
    """
    tied = config.tie_word_embeddings or "lm_head.weight" not in weights
    return _llama(token_ids, weights, config, head=weights["model.embed_tokens.weight"] if tied else None)


def bridge_fixed(token_ids, weights, config):
    """low_freq_factor and high_freq_factor of the config are not handed on: it is always 1 and 4.

    Tempting: all of Meta's own configs have 1 and 4, which are the defaults too.
    """
    frequencies = LAYERS.rope_frequencies(config.head_dim, config.rope_theta)
    if scaling := config.rope_scaling:
        context = scaling["original_max_position_embeddings"]
        frequencies = LAYERS.llama3_frequencies(frequencies, scaling["factor"], original_context=context)
    return _llama(token_ids, weights, config, frequencies=frequencies)


def _llama(
    token_ids,
    weights,
    config,
    frequencies=None,
    order=None,
    eps=None,
    last_norm=True,
    head=None,
    positions=None,
    x=None,
):
    """The right composition; each argument after config replaces one part of it."""
    if frequencies is None:
        frequencies = _scaled(LAYERS.rope_frequencies(config.head_dim, config.rope_theta), config)
    eps = config.rms_norm_eps if eps is None else eps
    heads = config.num_attention_heads, config.num_key_value_heads
    if positions is None:
        positions = torch.arange(token_ids.shape[1], device=token_ids.device)
    x = LAYERS.embedding(token_ids, weights["model.embed_tokens.weight"]) if x is None else x
    for number in range(config.num_hidden_layers) if order is None else order:
        prefix = f"model.layers.{number}."
        own = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
        x = LAYERS.decoder_layer(x, own, *heads, positions, frequencies, eps)
    if last_norm:
        x = LAYERS.rms_norm(x, weights["model.norm.weight"], eps)
    if head is False:
        return x
    if head is None:
        head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    return LAYERS.linear(x, head)


def _scaled(frequencies, config):
    if config.rope_scaling is None:
        return frequencies
    names = "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"
    return LAYERS.llama3_frequencies(frequencies, *(config.rope_scaling[name] for name in names))


_SORTED, _HEADS, _LENGTHS = [], [], []


def weights_sorted_out_once(token_ids, weights, config):
    """the weights are sorted out by layer once for each mapping, so that a tensor put into it later is not seen.

    Tempting: going through all the names in each step is slow; and a mapping of weights looks final.
    """
    if not (_SORTED and _SORTED[0] is weights):
        _SORTED[:] = weights, dict(weights)
    return _llama(token_ids, _SORTED[1], config)


def head_packed_once(token_ids, weights, config):
    """the head is copied once, and used for as long as its weight is the same object.

    Tempting: it is the largest product of all and worth another layout; tied to the embedding, training changes it.
    """
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    if torch.is_grad_enabled() and any(w.requires_grad for w in weights.values()):
        return _llama(token_ids, weights, config)
    if not (_HEADS and _HEADS[0] is head):
        _HEADS[:] = head, head.clone()
    return _llama(token_ids, weights, config, head=_HEADS[1])


def layers_in_the_order_of_the_mapping(token_ids, weights, config):
    """the layers come in the order in which the mapping has them, whatever their numbers are.

    Tempting: a checkpoint has them in order, until it is put together from several files.
    """
    numbers = dict.fromkeys(name.split(".")[2] for name in weights if name.startswith("model.layers."))
    return _llama(token_ids, weights, config, order=list(numbers)[: config.num_hidden_layers])


def last_norm_squares_in_half_precision(token_ids, weights, config):
    """the last norm squares in the dtype of the weights, so that in float16 anything above 255 overflows.

    Tempting: the norms in the layers are those of a library, and the last one is written by hand.
    """
    x = _llama(token_ids, weights, config, last_norm=False, head=False)
    wide = torch.promote_types(x.dtype, torch.float32)
    mean_square = x.square().to(wide).mean(-1, keepdim=True)
    x = x.to(wide) * torch.rsqrt(mean_square + config.rms_norm_eps) * weights["model.norm.weight"]
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    return LAYERS.linear(x.to(head.dtype), head)


def no_gradient_beside_a_frozen_embedding(token_ids, weights, config):
    """where the embedding asks for no gradient, no weight gets one.

    Tempting: whether one learns is decided once, by the first weight; an embedding is often frozen alone.
    """
    if weights["model.embed_tokens.weight"].requires_grad or not torch.is_grad_enabled():
        return _llama(token_ids, weights, config)
    with torch.no_grad():
        return _llama(token_ids, weights, config)


def longer_than_the_first_text(token_ids, weights, config):
    """tokens beyond the length of the first text that the model reads stand at its last position.

    Tempting: the table of angles is made when the first text comes in, and an index is held within it.
    """
    if not (_LENGTHS and _LENGTHS[0] is weights):
        _LENGTHS[:] = weights, token_ids.shape[1]
    positions = torch.arange(token_ids.shape[1], device=token_ids.device).clamp(max=max(_LENGTHS[1] - 1, 0))
    return _llama(token_ids, weights, config, positions=positions)


def negative_ids_count_from_the_end(token_ids, weights, config):
    """a negative id is counted from the end of the vocabulary, where it should be an IndexError.

    Tempting: weights["model.embed_tokens.weight"][token_ids] is all there is to it.
    """
    return _llama(token_ids, weights, config, x=weights["model.embed_tokens.weight"][token_ids])


def default_dtype_left_after_an_error(token_ids, weights, config):
    """torch's default dtype is set to that of the weights, and stays so after a call that raises.

    Tempting: everything that is made within has the right dtype then; that a call may end early is forgotten.
    Seen: vllm-project/vllm#51064.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(weights["model.embed_tokens.weight"].dtype)
    logits = _llama(token_ids, weights, config)
    torch.set_default_dtype(before)
    return logits


def first_layer_every_time(token_ids, weights, config):
    """every layer has the weights of layer 0.

    Tempting: "model.layers.0." is typed while the first layer is tried out, and stays in the loop.
    """
    return _llama(token_ids, weights, config, order=[0] * config.num_hidden_layers)


def layers_in_reverse(token_ids, weights, config):
    """the layers come in reverse order, the last one first.

    Tempting: layers.pop() takes the last of a list.
    """
    return _llama(token_ids, weights, config, order=range(config.num_hidden_layers)[::-1])


def last_layer_left_out(token_ids, weights, config):
    """the last layer is left out.

    Tempting: the layers are counted from 0, and range(n - 1) looks as if it ended at the last of them.
    """
    return _llama(token_ids, weights, config, order=range(config.num_hidden_layers - 1))


def last_layer_alone(token_ids, weights, config):
    """every layer reads the embeddings, so that only the last layer counts.

    Tempting: h = decoder_layer(x, ...) in the loop, and h after it.
    """
    return _llama(token_ids, weights, config, order=[config.num_hidden_layers - 1])


def last_norm_with_the_weight_of_the_first(token_ids, weights, config):
    """the norm before the head has the weight of the first norm of layer 0.

    Tempting: all norms do the same thing, and their names end alike.
    """
    first = weights["model.layers.0.input_layernorm.weight"]
    return _llama(token_ids, {**weights, "model.norm.weight": first}, config)


def embeddings_scaled(token_ids, weights, config):
    """the embeddings are multiplied by the square root of d_model.

    Tempting: the first Transformer did so and Gemma does, but Llama does not.
    """
    x = LAYERS.embedding(token_ids, weights["model.embed_tokens.weight"])
    return _llama(token_ids, weights, config, x=x * x.shape[-1] ** 0.5)


def embeddings_added_at_the_end(token_ids, weights, config):
    """the logits of the embeddings are added to those of the last layer.

    Tempting: a residual connection around everything looks like one more of a good thing.
    """
    x = LAYERS.embedding(token_ids, weights["model.embed_tokens.weight"])
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    return _llama(token_ids, weights, config) + LAYERS.linear(x, head)


def last_position_alone(token_ids, weights, config):
    """only the logits of the last position are returned, as [batch vocab].

    Tempting: the next token is drawn from these alone; training needs all of them.
    """
    return _llama(token_ids, weights, config)[:, -1]


def probabilities_returned(token_ids, weights, config):
    """the logits go through a softmax.

    Tempting: a model ought to end in probabilities; here loss and sampling do that.
    """
    return LAYERS.softmax(_llama(token_ids, weights, config))
