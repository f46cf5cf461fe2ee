"""A tokenizer that is trained, used, and written for others to read."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llama import implementation
from llama.text.byte_pairs import BytePairTokenizer, byte_characters
from llama.text.splitting import PATTERNS, pre_tokenize
from llama.text.tokenizer import JsonTokenizer, Tokenizer, load

TEXT = (
    "To be, or not to be: that's the question. It's 1603 or 1604; zürich\n\n"
    "  Whether 'tis nobler in the mind to suffer 中文 🙂🙂 the slings and arrows of fortune,\r\n\tOr to take\n"
)
TEXTS = st.lists(st.sampled_from([*"tobe ,'S1\n\t\r.éü中🙂\u0301\u200d", "the", " or", "'s", "160", "  "])).map("".join)


@pytest.fixture(scope="module", params=PATTERNS)
def trained(request):
    return BytePairTokenizer.train(TEXT, 300, request.param)


def test_what_stands_side_by_side_most_often_becomes_a_token():
    # Of equally frequent pairs the smallest: " b" twice, before "be" and "to", which are as frequent.
    tokenizer = BytePairTokenizer.train("to be or not to be", 258)
    assert tokenizer.merges == [(ord(" "), ord("b")), (ord("t"), ord("o"))]
    assert tokenizer.encode("to be").tolist() == [257, 256, ord("e")]
    assert tokenizer.decode([257, 256, ord("e")]) == "to be"


def test_it_is_a_tokenizer(trained):
    assert isinstance(trained, Tokenizer)
    assert trained.vocab == 300


def test_no_text_has_no_tokens(trained):
    assert trained.encode("").tolist() == []
    assert trained.decode([]) == ""


@given(text=TEXTS | st.text())
def test_decoding_what_was_encoded_gives_any_text_back(trained, text):
    assert trained.decode(trained.encode(text)) == text


@given(text=TEXTS)
def test_no_token_reaches_from_one_word_into_the_next(trained, text):
    words = [trained.encode(word) for word in pre_tokenize(text, trained.pattern)]
    assert torch.equal(trained.encode(text), torch.cat([torch.empty(0, dtype=torch.int64), *words]))


def test_who_watches_sees_each_distinct_word(trained):
    seen = []
    ids = trained.encode(TEXT, watch=lambda words: (seen.append(word) or word for word in words))
    assert torch.equal(ids, trained.encode(TEXT))
    assert sorted(seen) == sorted(set(pre_tokenize(TEXT, trained.pattern)))


def test_each_distinct_word_is_encoded_once(trained):
    asked = []

    def bpe_encode(word, merges):
        asked.append(word)
        return list(word)

    layers = implementation.load("fused").replacing("counting", bpe_encode=bpe_encode)
    tokenizer = BytePairTokenizer(trained.merges, trained.pattern, layers)
    asked.clear()
    assert tokenizer.encode("so so so").tolist() == list(b"so so so")
    assert sorted(asked) == [b" so", b"so"]


@pytest.mark.parametrize("name", ["naive", "vectorized"])
def test_the_layers_of_any_implementation_train_the_same_tokenizer(trained, name):
    other = BytePairTokenizer.train(TEXT, 300, trained.pattern, name)
    assert other.merges == trained.merges
    assert torch.equal(other.encode(TEXT), trained.encode(TEXT))
    assert other.decode(other.encode(TEXT)) == TEXT


def test_a_text_without_more_pairs_fills_no_larger_vocabulary():
    assert BytePairTokenizer.train("abab ab", 1000).merges == [(97, 98), (32, 256), (256, 256)]


def test_a_vocabulary_without_room_for_a_merge_is_refused():
    with pytest.raises(ValueError, match="tokenizer: vocab must be at least 257, the bytes and one merge, got 256$"):
        BytePairTokenizer.train(TEXT, 256)


@pytest.mark.parametrize("merges", [[(97, 256)], [(97, 98), (97, 98)]])
def test_merges_that_no_training_makes_are_refused(merges):
    with pytest.raises(ValueError, match="merges"):
        BytePairTokenizer(merges)


def test_half_of_a_character_is_refused(trained):
    with pytest.raises(ValueError, match=r"'\\ud83d' is half of a character"):
        trained.encode("a \ud83d")


def test_an_id_outside_the_vocabulary_is_an_index_error(trained):
    with pytest.raises(IndexError, match=r"ids must lie in 0..299, got 300"):
        trained.decode([0, 300])


def test_bytes_that_are_no_character_are_decoded_as_the_replacement_character(trained):
    assert trained.decode([0xF0, 0x9F, 97]) == "\ufffda"
    assert trained.bytes_of([0xF0, 0x9F, 97]) == b"\xf0\x9fa"


@pytest.fixture(scope="module")
def kept(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / "tokenizer.json"
    trained.save(path)
    return path


def test_the_kept_vocabulary_is_the_bytes_in_order_and_then_the_merges(trained, kept):
    ids = json.loads(kept.read_text(encoding="utf-8"))["model"]["vocab"]
    assert sorted(ids.values()) == list(range(trained.vocab))
    spelled = {character: byte for byte, character in enumerate(byte_characters())}
    for token, i in ids.items():
        assert bytes(spelled[character] for character in token) == trained.bytes_of([i])


def test_each_byte_has_the_character_that_tokenizers_writes_for_it():
    assert sorted(byte_characters()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    ((mapped, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(" \n~é")
    assert mapped == "".join(byte_characters()[byte] for byte in " \n~é".encode())


@pytest.fixture(scope="module")
def read_again(kept):
    return load(kept), PreTrainedTokenizerFast(tokenizer_file=str(kept))


@given(text=TEXTS)
def test_whoever_reads_the_kept_tokenizer_has_the_same_tokens(trained, read_again, text):
    ours, theirs = read_again
    ids = trained.encode(text)
    assert isinstance(ours, JsonTokenizer)
    assert ours.vocab == len(theirs) == trained.vocab
    assert ours.encode(text).tolist() == theirs(text)["input_ids"] == ids.tolist()
    assert ours.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False) == text


@given(ids=st.lists(st.integers(0, 299) | st.integers(128, 255)))
def test_whoever_reads_the_kept_tokenizer_reads_any_tokens_likewise(trained, read_again, ids):
    assert read_again[0].decode(ids) == trained.decode(ids)


def test_the_kept_tokenizer_merges_within_words_of_its_own_pattern(tmp_path):
    # One word for Llama 3; for GPT-2, which tokenizers would split by if it were not told otherwise, they are two.
    trained = BytePairTokenizer.train("(b)\n" * 9, 257, "llama3")
    assert trained.merges == [(ord("("), ord("b"))]
    trained.save(tmp_path / "tokenizer.json")
    assert load(tmp_path / "tokenizer.json").encode("(b)").tolist() == trained.encode("(b)").tolist() == [256, ord(")")]


def test_two_tokens_of_the_same_bytes_cannot_be_kept(tmp_path):
    tokenizer = BytePairTokenizer([(97, 98), (98, 99), (256, 99), (97, 257)])
    with pytest.raises(
        ValueError, match="tokens 258 and 259 are both b'abc', and a tokenizer.json holds each only once"
    ):
        tokenizer.save(tmp_path / "tokenizer.json")
    assert list(tmp_path.iterdir()) == []
