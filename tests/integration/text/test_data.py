"""From a name to batches: tokenizer, corpora, splits and windows."""

import hashlib
import http.server
import math
import os
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from llama.text import downloads, grammar
from llama.text.corpus import load_corpus
from llama.text.downloads import FILES, fetch
from llama.text.tokenizer import CharTokenizer
from llama.text.windows import Windows, split


@given(text=st.text(min_size=1))
def test_decoding_what_was_encoded_gives_the_text_back(text):
    tokenizer = CharTokenizer.from_text(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.vocab == len(set(text))


def test_a_character_that_the_vocabulary_lacks_is_refused_with_its_place():
    with pytest.raises(ValueError, match="the vocabulary lacks 'z', at position 2"):
        CharTokenizer("abc").encode("abz")


def test_a_vocabulary_survives_being_written_and_read(tmp_path):
    CharTokenizer.from_text("zürich\n").save(tmp_path / "characters.json")
    assert CharTokenizer.load(tmp_path / "characters.json").characters == "\nchirzü"


@given(n=st.integers(0, 300), first=st.integers(0, 10), second=st.integers(0, 10))
def test_splits_are_disjoint_in_order_and_cover_the_text(n, first, second):
    third = max(0, 20 - first - second)
    total = first + second + third
    text = "".join(map(chr, range(n)))
    assert "".join(split(text, (first / total, second / total, third / total))) == text


def test_the_default_split_is_80_10_10():
    assert [len(part) for part in split("a" * 1000)] == [800, 100, 100]


def test_fractions_that_do_not_add_up_to_one_are_refused():
    with pytest.raises(ValueError, match=r"split: fractions must be three that add up to 1, got \(0.5, 0.1, 0.1\)"):
        split("to be or not", (0.5, 0.1, 0.1))


@given(n=st.integers(2, 40), window=st.integers(1, 39), step=st.integers(0, 5))
def test_targets_are_the_inputs_shifted_by_one_and_stay_within_the_split(n, window, step):
    windows = Windows(torch.arange(n), min(window, n - 1))
    inputs, targets = windows.batch(4, seed=0, step=step)
    assert torch.equal(targets, inputs + 1)
    assert inputs.min() >= 0
    assert targets.max() <= n - 1


def test_every_window_is_drawn_the_first_and_the_last_too():
    windows = Windows(torch.arange(9), 4)
    starts = torch.cat([windows.batch(10, seed=0, step=step)[0][:, 0] for step in range(20)])
    assert sorted(set(starts.tolist())) == list(range(len(windows))) == [0, 1, 2, 3, 4]


def test_the_same_seed_gives_the_same_batches_on_resume_too_and_another_seed_others():
    windows = Windows(torch.arange(1000), 8)
    whole = [windows.batch(4, seed=1, step=step)[0] for step in range(6)]
    resumed = [Windows(torch.arange(1000), 8).batch(4, seed=1, step=step)[0] for step in range(3, 6)]
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], resumed, strict=True))
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole[0], windows.batch(4, seed=2, step=0)[0])


def test_a_window_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="a window of 8 needs 9 tokens, the split has 8"):
        Windows(torch.arange(8), 8)


@pytest.mark.parametrize("wrong", [{"size": -1}, {"seed": -2}, {"step": -3}])
def test_a_negative_size_seed_or_step_of_a_batch_is_refused(wrong):
    given = {"size": 4, "seed": 0, "step": 0} | wrong
    with pytest.raises(
        ValueError,
        match="windows: size, seed and step must not be negative, got {}, {} and {}$".format(*given.values()),
    ):
        Windows(torch.arange(9), 4).batch(**given)


def test_a_file_is_a_corpus_byte_for_byte(tmp_path):
    (tmp_path / "text.txt").write_bytes("Zwölf\r\n".encode())
    assert load_corpus(tmp_path / "text.txt").text == "Zwölf\r\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"aaa", "has no other character than 'a'"),
        (b"ab\xff", "is not UTF-8 text: byte 2 is 0xff"),
        (None, "is neither tinyshakespeare nor"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        load_corpus(tmp_path / "text.txt")


def test_a_file_in_the_data_folder_that_is_not_tinyshakespeare_is_refused(tmp_path, monkeypatch):
    (tmp_path / "tinyshakespeare.txt").write_text("To be")
    monkeypatch.setenv("LLAMA_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="is not tinyshakespeare.txt: its SHA-256 is"):
        load_corpus("tinyshakespeare")


def test_tinyshakespeare_has_its_40000_lines_and_65_characters():
    folder = os.environ.get("LLAMA_DATA_DIR")
    if not folder or not (Path(folder) / "tinyshakespeare.txt").is_file():
        pytest.skip("needs the real data: set LLAMA_DATA_DIR to a folder with tinyshakespeare.txt")
    text = load_corpus("tinyshakespeare").text
    assert (len(text), text.count("\n"), len(set(text))) == (1_115_394, 40_000, 65)


@pytest.fixture
def server():
    """A web server on this machine: /right is the file, /wrong another, /cut ends early, /slow never ends."""
    content = b"First Citizen:\n" * 100
    stop = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = content if self.path != "/wrong" else content[::-1]
            self.send_response(404 if self.path == "/missing" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.path == "/slow":
                while not stop.wait(0.05):
                    self.wfile.write(b".")
            self.wfile.write(body[:200] if self.path == "/cut" else body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", content
        stop.set()
        httpd.shutdown()


def test_a_fetched_file_is_checked_and_kept(server, tmp_path):
    url, content = server
    digest = hashlib.sha256(content).hexdigest()
    assert fetch(f"{url}/right", digest, tmp_path).read_bytes() == content
    # From the cache now: nothing answers at this address.
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [content]


@pytest.mark.parametrize("path", ["wrong", "cut", "missing"])
def test_a_wrong_a_truncated_and_a_missing_file_are_refused_and_not_kept(server, tmp_path, path):
    url, content = server
    with pytest.raises((ValueError, OSError)):
        fetch(f"{url}/{path}", hashlib.sha256(content).hexdigest(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_ends_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "PATIENCE", 0.5)
    with pytest.raises(TimeoutError, match="no complete answer"):
        fetch(f"{server[0]}/slow", "0" * 64, tmp_path)


def test_without_network_and_file_the_corpus_is_the_grammar_and_says_so(server, tmp_path, monkeypatch):
    monkeypatch.delenv("LLAMA_DATA_DIR", raising=False)
    monkeypatch.setitem(FILES, "tinyshakespeare.txt", (f"{server[0]}/missing", "0" * 64))
    monkeypatch.setattr(downloads.pooch, "os_cache", lambda _: tmp_path)
    corpus = load_corpus("tinyshakespeare")
    assert corpus.name == "grammar"
    assert "tinyshakespeare.txt could not be fetched (HTTPError); set LLAMA_DATA_DIR to a folder" in corpus.notice
    assert len(corpus.notice.splitlines()) == 1


TOY = {
    "<s>": [(1, ("<a>", "<a>", "!"))],
    "<a>": [(3, ("x",)), (1, ("yy",))],
}


def test_the_entropy_rate_is_the_entropy_of_the_choices_over_the_expected_length():
    # Two choices of 3/4 and 1/4: 0.562335 nats each; length 2 · (3/4 · 1 + 1/4 · 2) + 1 = 3.5.
    assert grammar.entropy_rate(TOY, "<s>") == pytest.approx(2 * 0.5623351446 / 3.5)


def test_the_built_in_text_has_more_than_a_million_characters():
    assert len(load_corpus("grammar").text) >= 1_000_000


def test_the_same_seed_draws_the_same_text_and_another_seed_another():
    first, again, other = (grammar.sample(grammar.SPEECHES, "<speech>", 2000, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_no_symbol_of_the_grammar_contains_itself():
    def reach(symbol, above):
        assert symbol not in above
        for _, parts in grammar.SPEECHES.get(symbol, ()):
            for part in parts:
                reach(part, (*above, symbol))

    reach("<speech>", ())


def _parse(symbol, text, start):
    """Every way to read `symbol` at text[start:]: {end: (number of derivations, probability)}."""
    if symbol not in grammar.SPEECHES:
        return {start + len(symbol): (1, 1.0)} if text.startswith(symbol, start) else {}
    total = sum(weight for weight, _ in grammar.SPEECHES[symbol])
    found = {}
    for weight, parts in grammar.SPEECHES[symbol]:
        ends = {start: (1, weight / total)}
        for part in parts:
            longer = {}
            for end, (ways, p) in ends.items():
                for e, (w, q) in _parse(part, text, end).items():
                    old = longer.get(e, (0, 0.0))
                    longer[e] = (old[0] + ways * w, old[1] + p * q)
            ends = longer
        for e, (w, q) in ends.items():
            old = found.get(e, (0, 0.0))
            found[e] = (old[0] + w, old[1] + q)
    return found


def test_every_speech_can_be_read_in_one_way_only_and_its_probability_averages_to_the_entropy():

    text = grammar.sample(grammar.SPEECHES, "<speech>", 60_000, seed=5)
    speeches = [speech + "\n\n" for speech in text.split("\n\n")[:-1]]
    surprises = []
    for speech in speeches:
        readings = _parse("<speech>", speech, 0)
        assert readings.keys() == {len(speech)}
        ways, p = readings[len(speech)]
        assert ways == 1
        surprises.append(-math.log(p))
    # An estimate from samples: within four standard errors of the mean surprise per speech.
    lengths = torch.tensor([float(len(s)) for s in speeches])
    rate = grammar.entropy_rate(grammar.SPEECHES, "<speech>")
    residual = torch.tensor(surprises) - rate * lengths
    assert residual.mean().abs() < 4 * residual.std() / len(speeches) ** 0.5


def test_annotations_are_enforced_in_these_tests():
    with pytest.raises(TypeCheckError, match="ids"):
        Windows(torch.ones(5), 2)
    with pytest.raises(TypeCheckError, match="starts"):
        Windows(torch.arange(5), 2).at(torch.tensor([[0]]))
