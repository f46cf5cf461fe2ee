"""The model at work: a step of training, a prompt, one token after another, and `generate` whole, beside transformers'.

Both have the same weights, dtype and threads. The work is that of the weights: 2 FLOP for each of them and token,
three times that in training, and in decoding that they are read for every token. What attention adds is left out,
as is usual.
"""

import copy
import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import peers
from benchmarks.cases import BOTH, FORWARD, HALF_AND_SINGLE, MULTIPLIED, Cell, Prepared, Work, benchmark_of, installed
from llama.generation.serving import serve
from llama.generation.speculation import speculate
from llama.generation.stream import generate, stream
from llama.implementation import Implementation
from llama.machine.device import check_compiler
from llama.model.compiled_decoder import CompiledDecoder
from llama.model.config import LlamaConfig
from llama.model.decoder import Decoder
from llama.model.kv_cache import KVCache
from llama.model.llama import Llama
from llama.model.quantized import GROUP, quantized
from llama.training.optimizer import Optimizer
from llama.training.trainer import next_token_loss

CONTEXT = 1024
CONFIGS = {
    "0.8M": LlamaConfig(
        vocab_size=65,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
    ),
    "10M": LlamaConfig(
        vocab_size=65,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=6,
        max_position_embeddings=CONTEXT,
    ),
    "110M": LlamaConfig(
        vocab_size=32000,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=CONTEXT,
    ),
}
WINDOWS, WINDOW = 64, 64
PROMPT = 256
CACHED = (16, 128, 512, 1000)
DECODED = 4
BEGUN, GENERATED = 16, 64
TOGETHER = 16
DRAFTED, PROPOSED, NOISE = 256, 4, 0.1
DRAFT = LlamaConfig(
    vocab_size=32000,
    hidden_size=256,
    num_hidden_layers=4,
    num_attention_heads=4,
    max_position_embeddings=CONTEXT,
)
LR = 1e-3
ROUNDS = 3


class Ours:
    """The public interface of this project's model, over one implementation."""

    def __init__(self, implementation: Implementation, config: LlamaConfig, dtype: torch.dtype):
        self.model = _with_weights(Llama(config, implementation)).to(dtype).eval()
        self.dtype = dtype

    def training_step(self, dtype: torch.dtype) -> Callable[[Tensor], object]:
        """Of weights in float32, computed in `dtype`."""
        self.model.compute_dtype = None if dtype == torch.float32 else dtype
        optimizer = Optimizer(self.model)

        def step(ids: Tensor) -> None:
            next_token_loss(self.model, ids[:, :-1], ids[:, 1:]).backward()
            optimizer.step(LR)

        return step

    def logits(self, ids: Tensor) -> Tensor:
        return self.model(ids)

    def cache(self, ids: Tensor) -> Any:
        cache = KVCache(self.model.config, len(ids), self.dtype)
        self.model(ids, cache)
        return cache

    def generate(self, ids: Tensor) -> Tensor:
        return generate(self.model, ids, GENERATED, temperature=0)

    def generate_together(self, ids: Tensor) -> object:
        return list(serve(self.model, ids, GENERATED, temperature=0, at_once=len(ids)))

    @functools.cached_property
    def next_logits(self) -> Callable[[Tensor, Any], Tensor]:
        if not Decoder.suits(self.model):
            return self.model
        decoder = Decoder(self.model)
        return lambda ids, cache: decoder(int(ids), cache)


class Programs(Ours):
    """The same, decoding by a program for each layer; of `bits`, where they are given."""

    def __init__(self, bits: int | None, implementation: Implementation, config: LlamaConfig, dtype: torch.dtype):
        super().__init__(implementation, config, dtype)
        _skip_without_compiler()
        if bits is not None:
            self.model = quantized(self.model, bits)

    def generate(self, ids: Tensor) -> Tensor:
        return generate(self.model, ids, GENERATED, temperature=0, compile=True)

    @functools.cached_property
    def next_logits(self) -> Callable[[Tensor, Any], Tensor]:
        decoder = CompiledDecoder(self.model)
        return lambda ids, cache: decoder(int(ids), cache)


class Compiled(Ours):
    """The same, once torch.compile has made a program of its training."""

    def training_step(self, dtype: torch.dtype) -> Callable[[Tensor], object]:
        _skip_without_compiler()
        self.model.train().compile_training()
        return super().training_step(dtype)


def _skip_without_compiler() -> None:
    try:
        check_compiler(torch.device("cpu"))
    except ValueError as error:
        pytest.skip(str(error))


class Theirs:
    """transformers' LlamaForCausalLM, with torch's fused AdamW and the same clipping."""

    def __init__(self, config: LlamaConfig, dtype: torch.dtype):
        self.model = peers.causal_lm(dict(_with_weights(Llama(config)).to(dtype).named_parameters()), config)

    def training_step(self, dtype: torch.dtype) -> Callable[[Tensor], object]:
        parameters = list(self.model.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=LR, betas=(0.9, 0.99), weight_decay=0.1, fused=True)
        # It makes its averages in its first step, ours at once; they are to count for neither.
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()

        def step(ids: Tensor) -> None:
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                logits = self.model(ids[:, :-1], use_cache=False).logits
            F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten()).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()

        return step

    def logits(self, ids: Tensor) -> Tensor:
        return self.model(ids, use_cache=False).logits

    def cache(self, ids: Tensor) -> Any:
        return self.model(ids, use_cache=True)[self._cache]

    def generate(self, ids: Tensor) -> Tensor:
        ends = {"max_new_tokens": GENERATED, "min_new_tokens": GENERATED, "do_sample": False}
        return self.model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **ends)

    def generate_together(self, ids: Tensor) -> object:
        return self.generate(ids)

    def next_logits(self, ids: Tensor, cache: Any) -> Tensor:
        return self.model(ids, **{self._cache: cache}, use_cache=True).logits

    @functools.cached_property
    def _cache(self) -> str:
        """What transformers calls it: past_key_values up to 5.23, cache since."""
        return "cache" if "cache" in inspect.signature(self.model.forward).parameters else "past_key_values"


def _with_weights(model: Llama) -> Llama:
    model.reset_parameters(torch.Generator().manual_seed(0))
    return model


@functools.cache
def _parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Llama(CONFIGS[name]).parameters())


def _ids(name: str, *shape: int) -> Tensor:
    return torch.randint(CONFIGS[name].vocab_size, shape, generator=torch.Generator().manual_seed(1))


Column = tuple[str, Callable[..., Ours | Theirs], bool]


def _columns(columns: Sequence[Implementation]) -> Iterator[Column]:
    """fused and what is under test, which with its own composed layers has no cache; and the peer."""
    for i in columns:
        if i.name == "fused" or not i.is_ours:
            yield i.name, functools.partial(Ours, i), False
    for column in installed({"transformers": Theirs}):
        yield column, Theirs, True


def _writing_columns(columns: Sequence[Implementation]) -> list[Column]:
    """What writes a token after the other: with programs and in few bits, too."""
    made = list(_columns([i for i in columns if not i.composes]))
    for i in columns:
        if i.name == "fused":
            made += [("programs", functools.partial(Programs, None, i), False)]
            made += [(f"{bits} bits", functools.partial(Programs, bits, i), False) for bits in (8, 4)]
    return made


def _work(name: str, tokens: int, passes: str) -> Work:
    return Work(2 * _parameters(name) * tokens * (3 if passes == BOTH else 1), "flop", tokens)


def training_cells(columns: Sequence[Implementation]) -> Iterator[Cell]:
    for name, dtype in itertools.product(CONFIGS, MULTIPLIED):
        # 64 windows would keep the largest busy for twenty seconds a step.
        long = name == "110M"
        windows = 16 if long else WINDOWS
        if long and dtype != torch.float32:
            continue
        made = list(_columns(columns))
        if dtype == MULTIPLIED[-1]:  # once for each size: to compile takes half a minute
            made += [("compiled", functools.partial(Compiled, i), False) for i in columns if i.name == "fused"]
        for column, make, reference in made:
            yield Cell(
                layer="model training step",
                column=column,
                dtype=str(dtype).removeprefix("torch."),
                passes=BOTH,
                along="parameters",
                size=_parameters(name),
                work=_work(name, windows * WINDOW, BOTH),
                prepare=functools.partial(_training_step, make, name, dtype, windows),
                reference=reference,
                memory=column != "compiled",  # the compiler's would be measured
                rounds=1 if long else ROUNDS,
            )


def _training_step(
    make: Callable[..., Ours | Theirs], name: str, dtype: torch.dtype, windows: int
) -> Callable[[], object]:
    step, ids = make(CONFIGS[name], torch.float32).training_step(dtype), _ids(name, windows, WINDOW + 1)
    return lambda: step(ids)


def prefill_cells(columns: Sequence[Implementation]) -> Iterator[Cell]:
    for name in CONFIGS:
        for dtype in MULTIPLIED:
            for column, make, reference in _columns(columns):
                yield Cell(
                    layer="model prefill",
                    column=column,
                    dtype=str(dtype).removeprefix("torch."),
                    passes=FORWARD,
                    along="parameters",
                    size=_parameters(name),
                    work=_work(name, PROMPT, FORWARD),
                    prepare=functools.partial(_prefill, make, name, dtype),
                    reference=reference,
                    memory=True,
                    rounds=ROUNDS,
                )


def _prefill(make: Callable[..., Ours | Theirs], name: str, dtype: torch.dtype) -> Callable[[], object]:
    model, ids = _model(make, name, dtype), _ids(name, 1, PROMPT)
    return lambda: model.logits(ids)


def generating_cells(columns: Sequence[Implementation]) -> Iterator[Cell]:
    for name, dtype in itertools.product(CONFIGS, HALF_AND_SINGLE):
        for column, make, reference in _writing_columns(columns):
            if "bits" in column and dtype != torch.float32:
                continue
            yield Cell(
                layer="model generate",
                column=column,
                dtype=str(dtype).removeprefix("torch."),
                passes=FORWARD,
                along="parameters",
                size=_parameters(name),
                work=Work(int(_parameters(name) * _size(column, dtype)) * GENERATED, "byte", GENERATED),
                prepare=functools.partial(_generating, make, name, dtype),
                reference=reference,
                memory=True,
                rounds=1 if name == "110M" else ROUNDS,  # two seconds each
            )


def _generating(make: Callable[..., Ours | Theirs], name: str, dtype: torch.dtype) -> Callable[[], object]:
    """Everything between a prompt and the text behind it: what is read first, what is laid out anew, each choice."""
    model, ids = _model(make, name, dtype), _ids(name, 1, BEGUN)
    return lambda: model.generate(ids)


def serving_cells(columns: Sequence[Implementation]) -> Iterator[Cell]:
    """Several texts at once. Theirs are all of one length, which transformers' generate needs not to pad."""
    for name in CONFIGS:
        for column, make, reference in _columns([i for i in columns if not i.composes]):
            yield Cell(
                layer=f"model {TOGETHER} texts at once",
                column=column,
                dtype="float32",
                passes=FORWARD,
                along="parameters",
                size=_parameters(name),
                work=Work(2 * _parameters(name) * GENERATED * TOGETHER, "flop", GENERATED * TOGETHER),
                prepare=functools.partial(_serving, make, name),
                reference=reference,
                memory=True,
                rounds=1 if name == "110M" else ROUNDS,  # two seconds each
            )


def _serving(make: Callable[..., Ours | Theirs], name: str) -> Callable[[], object]:
    model, ids = _model(make, name, torch.float32), _ids(name, TOGETHER, BEGUN)
    return lambda: model.generate_together(ids)


def drafted_cells(columns: Sequence[Implementation]) -> Iterator[Cell]:
    """One text, alone and with a draft. What a draft is worth depends on how much of what it proposes is kept."""
    if all(i.name != "fused" for i in columns):
        return
    for proposed, compile in itertools.product((0, PROPOSED), (False, True)):
        column = f"{PROPOSED} proposed" + " by programs" * compile if proposed else "programs" if compile else "fused"
        yield Cell(
            layer="model with a draft",
            column=column,
            dtype="float32",
            passes=FORWARD,
            along="parameters",
            size=_parameters("110M"),
            work=_work("110M", DRAFTED, FORWARD),
            prepare=functools.partial(_drafted, proposed, compile),
            memory=True,
            rounds=ROUNDS,
        )


def _drafted(proposed: int, compile: bool) -> Callable[[], object]:
    if compile:
        _skip_without_compiler()
    large, draft = _grown()
    ids = _ids("110M", BEGUN)
    if proposed:
        return lambda: list(speculate(large, draft, ids, DRAFTED, proposed, temperature=0, compile=compile))
    return lambda: list(stream(large, ids[None], DRAFTED, temperature=0, compile=compile))


@functools.cache
def _grown() -> tuple[Llama, Llama]:
    """A large model and a draft that fits it: the draft's weights in a corner of the large ones, and noise elsewhere.

    There is so little noise that the large model keeps most of what is proposed to it.
    """
    large, draft = _with_weights(Llama(CONFIGS["110M"])), _with_weights(Llama(DRAFT))
    corner = dict(draft.named_parameters())
    with torch.no_grad():
        for name, weight in large.named_parameters():
            if weight.ndim == 2:
                weight *= NOISE
            if name in corner:
                # A norm divides by the root of a mean, over more elements here.
                of = corner[name] if weight.ndim == 2 else corner[name] * (len(corner[name]) / len(weight)) ** 0.5
                weight[tuple(slice(n) for n in of.shape)] = of
    return large.eval(), draft.eval()


def decoding_cells(name: str, columns: Sequence[Implementation]) -> Iterator[Cell]:
    made = _writing_columns(columns)
    for dtype in HALF_AND_SINGLE:
        # A single token is read, not multiplied, in bfloat16 too; but where that is imitated, a long cache takes
        # minutes.
        for cached in CACHED if dtype in MULTIPLIED else CACHED[:1]:
            for column, make, reference in made:
                if "bits" in column and dtype != torch.float32:
                    continue
                yield Cell(
                    layer=f"model decoding {name}",
                    column=column,
                    dtype=str(dtype).removeprefix("torch."),
                    passes=FORWARD,
                    along="cached",
                    size=cached,
                    work=Work(int(_parameters(name) * _size(column, dtype)) * DECODED, "byte", DECODED),
                    prepare=functools.partial(_decoding, make, name, dtype, cached),
                    reference=reference,
                    memory=True,
                    rounds=ROUNDS,
                )


def _size(column: str, dtype: torch.dtype) -> float:
    """Bytes of a weight, and of its part of a scale where it is quantised."""
    return {"8 bits": 1 + 4 / GROUP, "4 bits": 1 / 2 + 4 / GROUP}.get(column, dtype.itemsize)


def _decoding(make: Callable[..., Ours | Theirs], name: str, dtype: torch.dtype, cached: int) -> Prepared:
    """The next tokens after a cache of so many; a call makes it longer, so each gets a copy."""
    model, next_id = _model(make, name, dtype), _ids(name, 1, 1)
    filled = model.cache(_ids(name, 1, cached))

    def decode(cache: Any) -> Tensor:
        for _ in range(DECODED):
            logits = model.next_logits(next_id, cache)
        return logits

    return Prepared(decode, lambda: copy.deepcopy(filled))


@functools.lru_cache(maxsize=4)
def _model(make: Callable[..., Ours | Theirs], name: str, dtype: torch.dtype) -> Ours | Theirs:
    return make(CONFIGS[name], dtype)


# torch.compile does what torch warns of, and hides that with filters of its own; where warnings are errors it fails.
bench_model_training_step = pytest.mark.filterwarnings("ignore")(benchmark_of(training_cells))
bench_model_prefill = benchmark_of(prefill_cells)
bench_model_generate = pytest.mark.filterwarnings("ignore")(benchmark_of(generating_cells))
bench_model_serving = benchmark_of(serving_cells)
bench_model_drafted = pytest.mark.filterwarnings("ignore")(benchmark_of(drafted_cells))
bench_model_decoding_small = pytest.mark.filterwarnings("ignore")(
    benchmark_of(functools.partial(decoding_cells, "0.8M"))
)
bench_model_decoding_medium = pytest.mark.filterwarnings("ignore")(
    benchmark_of(functools.partial(decoding_cells, "10M"))
)
bench_model_decoding_large = pytest.mark.filterwarnings("ignore")(
    benchmark_of(functools.partial(decoding_cells, "110M"))
)
