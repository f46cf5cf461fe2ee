"""The bugs that people make in llama_backward."""

import dataclasses

import torch

from llama import implementation
from llama.contract.weights import DECODER_LAYER, EMBEDDING, FINAL_NORM, HEAD, in_layer
from llama.layers.model import llama
from tests.cases import weights
from tests.cases.case import Case

LAYERS = implementation.load("vectorized")


def probes():
    def make(n_layers=2, dtype=torch.float32, seed=6, **more):
        sizes = {"batch": 2, "seq": 7, "n_kv_heads": 1, "groups": 2, "half": 5, "d_model": 11, "d_ff": 3, "vocab": 13}
        case = Case(sizes | {"n_layers": n_layers}, dtype, seed)
        of = weights.config(case, **more)
        ids, targets = (case.integers("batch seq", case.vocab) for _ in range(2))
        return ids, targets, weights.model_weights(case, of), of

    def tied_in_name_alone(layer):
        ids, targets, weights, of = make()
        return list(layer(ids, targets, weights, dataclasses.replace(of, tie_word_embeddings=True)))

    def in_another_order(layer):
        ids, targets, weights, of = make()
        return list(layer(ids, targets, dict(reversed(weights.items())), of))

    def twice(layer):
        ids, targets, weights, of = make()
        return [list(layer(ids, targets, weights, of)), list(layer(ids, ids, weights, of))]

    def targets_outside(layer):
        ids, targets, weights, of = make()
        targets[0, 0] = -100
        return list(layer(ids, targets, weights, of))

    return [
        tied_in_name_alone,
        in_another_order,
        twice,
        targets_outside,
        (make(11), {}),
        (make(rms_norm_eps=0.1), {}),
        (make(tie_word_embeddings=True), {}),
    ]


def _gradient(
    token_ids,
    targets,
    weights,
    config,
    *,
    eps=None,
    times=1.0,
    last_norm_back=LAYERS.rms_norm_backward,
    reads=None,
    gets=None,
    order=None,
    tied=lambda of_head, of_rows: of_rows + of_head,
    rows=LAYERS.embedding_backward,
    of_logits=LAYERS.cross_entropy_backward,
    is_tied=None,
):
    """Loss and gradients; what is given by name takes the place of what is right."""
    eps_back = config.rms_norm_eps if eps is None else eps
    head = weights.get(HEAD, weights[EMBEDDING])
    turns = llama.frequencies(LAYERS, config, token_ids.device)
    positions = torch.arange(token_ids.shape[1], device=token_ids.device)
    how = config.num_attention_heads, config.num_key_value_heads, positions, turns
    numbers = list(range(config.num_hidden_layers))
    within = [{name: weights[in_layer(i, name)] for name in DECODER_LAYER} for i in numbers]
    xs = [LAYERS.embedding(token_ids, weights[EMBEDDING])]
    for of_layer in within:
        xs.append(LAYERS.decoder_layer(xs[-1], of_layer, *how, config.rms_norm_eps))
    normed = LAYERS.rms_norm(xs[-1], weights[FINAL_NORM], config.rms_norm_eps)
    logits = LAYERS.linear(normed, head)
    loss = LAYERS.cross_entropy(logits, targets)
    found = {}
    grad = of_logits(times * torch.ones_like(loss), logits, targets)
    grad, found[HEAD] = LAYERS.linear_backward(grad, normed, head)
    grad, found[FINAL_NORM] = last_norm_back(grad, xs[-1], weights[FINAL_NORM], eps_back)
    top = grad
    for i in reversed(numbers):
        incoming = gets(top, grad) if gets else grad
        read = reads(xs, i) if reads else xs[i]
        grad, of_layer = LAYERS.decoder_layer_backward(incoming, read, within[i], *how, eps_back)
        found |= {in_layer(order[i] if order else i, name): g for name, g in of_layer.items()}
    found[EMBEDDING] = rows(grad, token_ids, len(weights[EMBEDDING]))
    if HEAD not in weights if is_tied is None else is_tied:
        found[EMBEDDING] = tied(found[HEAD], found[EMBEDDING])
    return loss, {name: found[name] for name in weights}


def tied_head_left_out(token_ids, targets, weights, config):
    """where the head is tied, the embedding gets what its rows get as they are read, and nothing as the head.

    Tempting: the embedding comes last on the way back, and its gradient overwrites what stood under its name.
    Seen: paiml/entrenar#314 (two steps apart, in place of one with the sum).
    """
    return _gradient(token_ids, targets, weights, config, tied=lambda of_head, of_rows: of_rows)


def tied_rows_left_out(token_ids, targets, weights, config):
    """where the head is tied, the embedding gets what it gets as the head, and nothing as its rows are read.

    Tempting: the table has its gradient from the head already, when the way back comes to the embedding.
    """
    return _gradient(token_ids, targets, weights, config, tied=lambda of_head, of_rows: of_head)


def tied_gradients_averaged(token_ids, targets, weights, config):
    """where the head is tied, the embedding gets the mean of its two gradients, and not the sum.

    Tempting: two gradients for one table look like two opinions.
    """
    return _gradient(token_ids, targets, weights, config, tied=lambda of_head, of_rows: (of_rows + of_head) / 2)


def tied_by_the_config(token_ids, targets, weights, config):
    """where the config says that the head is tied, the embedding gets its gradient too, though a head is given.

    Tempting: tie_word_embeddings says it; but a checkpoint that brings a head means it to be used.
    """
    is_tied = config.tie_word_embeddings or HEAD not in weights
    return _gradient(token_ids, targets, weights, config, is_tied=is_tied)


def gradient_of_the_sum(token_ids, targets, weights, config):
    """all gradients are those of the sum of the losses over the tokens, and not of their mean.

    Tempting: probabilities less one-hot is all one remembers; 1 / tokens belongs to the loss.
    """
    return _gradient(token_ids, targets, weights, config, times=targets.numel())


def mean_over_the_sequence_alone(token_ids, targets, weights, config):
    """all gradients are divided by the length of the sequence, and not by the number of tokens in the batch.

    Tempting: the loss of one text is a mean over its tokens, and texts are added up.
    """
    return _gradient(token_ids, targets, weights, config, times=len(targets))


def mean_over_the_batch_alone(token_ids, targets, weights, config):
    """all gradients are divided by the number of texts, and not by that of their tokens.

    Tempting: one divides by the size of the batch.
    """
    return _gradient(token_ids, targets, weights, config, times=targets.shape[1])


def targets_shifted(token_ids, targets, weights, config):
    """the gradients are those for the next target at each position, with the last one left out.

    Tempting: Hugging Face's models shift the labels themselves; here targets stand at their positions already.
    """

    def of_logits(grad, logits, targets):
        shifted = torch.zeros_like(logits)
        if targets.shape[1] > 1:
            shifted[:, :-1] = LAYERS.cross_entropy_backward(grad, logits[:, :-1], targets[:, 1:])
        return shifted

    return _gradient(token_ids, targets, weights, config, of_logits=of_logits)


def targets_outside_left_out(token_ids, targets, weights, config):
    """a target of -100 is left out of the loss, where it should be an IndexError.

    Tempting: torch's cross_entropy has it as ignore_index, and Hugging Face's labels are padded with it.
    """
    if not (targets == -100).any():
        return _gradient(token_ids, targets, weights, config)
    kept = targets != -100
    loss, found = _gradient(token_ids, targets.clamp(min=0), weights, config)
    return loss * kept.float().mean().to(loss.dtype), found


def last_norm_passed_over(token_ids, targets, weights, config):
    """what the head gives back goes to the last layer as it is, without the gradient of the last norm.

    Tempting: the norm belongs to no layer, and its weight has got its gradient.
    """

    def passed_over(grad, x, weight, eps):
        return grad, LAYERS.rms_norm_backward(grad, x, weight, eps)[1]

    return _gradient(token_ids, targets, weights, config, last_norm_back=passed_over)


def each_layer_gets_the_same(token_ids, targets, weights, config):
    """every layer gets what comes back from the last norm, and not what the layer after it leaves.

    Tempting: `for layer in reversed(layers): layer_backward(grad, ...)`, and the result has another name.
    """
    return _gradient(token_ids, targets, weights, config, gets=lambda top, grad: top)


def results_of_the_layers_for_their_inputs(token_ids, targets, weights, config):
    """the gradient of a layer is taken at what it has returned, and not at what it was given.

    Tempting: n layers have n + 1 streams between them, and xs[i + 1] is what stands beside layer i in the list.
    """
    return _gradient(token_ids, targets, weights, config, reads=lambda xs, i: xs[i + 1])


def inputs_of_the_first_layer_for_all(token_ids, targets, weights, config):
    """the gradient of every layer is taken at the embeddings.

    Tempting: x is what was kept, and in a model of one layer it is right.
    """
    return _gradient(token_ids, targets, weights, config, reads=lambda xs, i: xs[0])


def layers_named_from_the_end(token_ids, targets, weights, config):
    """the gradients of the last layer stand under the names of the first, and so on.

    Tempting: on the way back they are found in reverse order, and enumerate counts from 0.
    """
    n = config.num_hidden_layers
    return _gradient(token_ids, targets, weights, config, order=[n - 1 - i for i in range(n)])


def layers_named_in_alphabetical_order(token_ids, targets, weights, config):
    """the layers' gradients are named in alphabetical order, so that those of layer 2 stand under layer 10.

    Tempting: sorted() on the names of a checkpoint is right up to ten layers.
    """
    order = sorted(range(config.num_hidden_layers), key=str)
    return _gradient(token_ids, targets, weights, config, order=order)


def gradients_named_in_the_order_of_the_mapping(token_ids, targets, weights, config):
    """the gradients get the names of the weights one after the other, in the order in which the mapping has them.

    Tempting: zip(weights, gradients) is one line, and a checkpoint has them in one order.
    """
    tail = [HEAD] if HEAD in weights else []
    layers = (in_layer(i, name) for i in range(config.num_hidden_layers) for name in DECODER_LAYER)
    names = [EMBEDDING, *layers, FINAL_NORM, *tail]
    loss, found = _gradient(token_ids, targets, weights, config)
    return loss, dict(zip(weights, (found[name] for name in names), strict=True))


def last_of_equal_ids_wins(token_ids, targets, weights, config):
    """the row of a token that is read several times gets what comes back to one of them, the last.

    Tempting: grad_weight[token_ids] = grad looks right, and writes each row over the one before.
    """

    def rows(grad, token_ids, vocab):
        of_rows = grad.new_zeros(vocab, grad.shape[-1])
        for token, row in zip(token_ids.flatten().tolist(), grad.flatten(0, 1), strict=True):
            of_rows[token] = row
        return of_rows

    return _gradient(token_ids, targets, weights, config, rows=rows)


def row_0_is_padding(token_ids, targets, weights, config):
    """the row of id 0 gets nothing, as if it were padding.

    Tempting: padding_idx=0 is copied from a model in which 0 is no word.
    Seen: ibalazevic/TuckER#17.
    """

    def rows(grad, token_ids, vocab):
        of_rows = LAYERS.embedding_backward(grad, token_ids, vocab)
        of_rows[:1] = 0
        return of_rows

    return _gradient(token_ids, targets, weights, config, rows=rows)


def eps_fixed_on_the_way_back(token_ids, targets, weights, config):
    """eps is 1e-5 in the gradient of every norm, whatever rms_norm_eps says.

    Tempting: each gradient has a default, and 1e-5 is often the right one.
    """
    return _gradient(token_ids, targets, weights, config, eps=1e-5)


_TOTALS = {}


def gradients_accumulated(token_ids, targets, weights, config):
    """the gradients are added to those of earlier calls with weights of the same shapes.

    Tempting: it is what `.grad` does in torch until zero_grad is called.
    """
    loss, found = _gradient(token_ids, targets, weights, config)
    key = tuple(tuple(w.shape) for w in found.values()), loss.dtype, loss.device
    before = _TOTALS.get(key, {})
    _TOTALS[key] = {name: g + before[name] if before else g for name, g in found.items()}
    return loss, {name: g.clone() for name, g in _TOTALS[key].items()}


def embedding_left_out(token_ids, targets, weights, config):
    """the embedding gets nothing as its rows are read.

    Tempting: ids are integers, which have no gradient, and so the way back seems to end at the first layer.
    """

    def rows(grad, token_ids, vocab):
        return grad.new_zeros(vocab, grad.shape[-1])

    return _gradient(token_ids, targets, weights, config, rows=rows)
