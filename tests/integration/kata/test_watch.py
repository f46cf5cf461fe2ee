"""Watching: what the loop does with each event, and the whole of it on a real terminal."""

import errno
import inspect
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llama.__main__ import main
from llama.kata.board import FIRST_LAYERS, unit_test
from llama.kata.watching.terminal import END, Screen
from llama.kata.watching.warm import Ended, Printed, Progress, _Output
from llama.kata.watching.watch import Key, Saved, Watch, watch
from llama.layers import LAYERS, layer_module
from tests.session.running.nested_runs import INHERITED, ROOT

FOLDER = Path("my_llama")
NOTHING_DONE = Progress((), "softmax")


class Runs:
    """Tests that only note what is asked of them."""

    def __init__(self):
        self.started, self.stops = [], 0

    def start(self, layer="", every_failure=False):
        self.started.append((layer, "every failure") if every_failure else layer)
        return len(self.started)

    def stop(self):
        self.stops += 1


class Learner:
    """A loop with faked runs, keys, terminal and time."""

    def __init__(self, has_keys=True):
        self.runs, self.now, self.file = Runs(), 0.0, io.StringIO()
        self.watch = Watch(
            FOLDER, self.runs, Screen(self.file), time_limit=60, has_keys=has_keys, clock=lambda: self.now
        )
        self.watch.begin()
        self.ends(NOTHING_DONE)

    def saves(self, *names):
        self.watch.handle(Saved(tuple(FOLDER / name for name in names)))

    def presses(self, letter):
        return self.watch.handle(Key(letter))

    def reads(self, text):
        self.watch.handle(Printed(len(self.runs.started), text))

    def ends(self, progress):
        self.watch.handle(Ended(len(self.runs.started), progress))

    def sees(self):
        """What was shown since this was asked last."""
        text = self.file.getvalue()
        self.file.seek(0)
        self.file.truncate()
        return text


@pytest.fixture
def learner():
    return Learner()


def test_it_begins_with_how_far_the_folder_has_come_and_what_to_write_first(learner):
    shown = learner.sees()
    assert f"0 of {len(FIRST_LAYERS)} layers done" in shown
    assert f"Next: write {FOLDER / 'softmax'}.py; read {unit_test('softmax')}" in shown
    assert "q quit" in shown


def test_the_layer_of_the_saved_file_is_tested(learner):
    learner.saves("rope.py")
    assert learner.runs.started == ["", "rope"]


def test_a_file_that_layers_import_tests_the_layer_that_was_worked_on_last(learner):
    learner.saves("helpers.py")
    learner.saves("rope.py")
    learner.saves("helpers.py")
    assert learner.runs.started == ["", "softmax", "rope", "rope"]


def test_of_several_files_that_are_saved_at_once_the_layer_that_was_worked_on_is_tested(learner):
    learner.saves("rope.py")
    learner.saves("softmax.py", "rope.py")
    assert learner.runs.started == ["", "rope", "rope"]


def test_what_a_run_prints_is_shown_as_it_comes(learner):
    learner.saves("rope.py")
    learner.reads("14 worked examples pass\n")
    assert learner.sees().endswith("14 worked examples pass\n")


def test_a_line_is_broken_between_words_where_the_terminal_is_too_narrow():
    class Replies:
        def send(self, text):
            sent.append(text)

    sent = []
    output = _Output(Replies(), columns=20)
    output.write("Your output is exactly what you get\nwhen it_is_a_long_name_of_a_thing\n")
    assert "".join(sent) == "Your output is\nexactly what you get\nwhen\nit_is_a_long_name_of_a_thing\n"


def test_a_layer_that_is_saved_while_its_tests_run_is_tested_again_from_the_start(learner):
    learner.saves("rope.py")
    learner.saves("rope.py")
    assert learner.runs.started == ["", "rope", "rope"]
    learner.sees()
    learner.watch.handle(Printed(2, "of the run that was stopped"))
    learner.watch.handle(Ended(2, None))
    assert learner.sees() == ""


def test_what_a_run_says_last_stays_above_the_keys(learner):
    learner.saves("softmax.py")
    learner.sees()
    learner.reads("softmax is right\n")
    learner.ends(Progress(("softmax",), "cross_entropy"))
    assert learner.sees().startswith("softmax is right\nh hint")


def test_a_layer_that_hangs_is_stopped_after_the_time_limit(learner):
    learner.saves("rope.py")
    learner.reads("..F")
    learner.now = 60.0
    learner.watch.check_time()
    assert learner.runs.stops == 0
    learner.now = 60.1
    learner.watch.check_time()
    assert learner.runs.stops == 1
    assert "..F\nrope was stopped after 60 seconds" in learner.sees()


def test_a_layer_that_ends_its_process_is_named(learner):
    learner.saves("rope.py")
    learner.ends(None)
    assert "The process that tested rope has died" in learner.sees()


def test_a_folder_that_cannot_be_imported_says_why_once_and_forgets_nothing(learner):
    learner.saves("rope.py")
    learner.ends(Progress(("softmax",), "rope"))
    learner.sees()
    learner.saves("rope.py")
    learner.reads("SyntaxError: rope.py, line 3\n")
    learner.ends(Progress((), "", "SyntaxError: rope.py, line 3"))
    assert learner.sees().count("SyntaxError: rope.py, line 3") == 1
    assert learner.watch.progress.done == ("softmax",)


def test_n_goes_on_with_the_next_layer_that_is_not_done(learner):
    learner.watch.progress = Progress(("cross_entropy",), "softmax")
    learner.presses("n")
    assert f"Next: write {FOLDER / 'embedding'}.py" in learner.sees()
    learner.saves("helpers.py")
    assert learner.runs.started[-1] == "embedding"


def test_n_begins_again_after_the_last_layer(learner):
    learner.saves(f"{LAYERS[-1]}.py")
    learner.presses("n")
    assert "Next: write my_llama/softmax.py" in learner.sees().replace("\\", "/")


def test_a_runs_all_tests_of_the_layer(learner):
    learner.saves("rope.py")
    learner.presses("a")
    assert learner.runs.started[-1] == ("rope", "every failure")


def test_p_says_where_the_picture_of_the_last_failure_is(learner):
    learner.presses("p")
    assert "The last run has left no picture." in learner.sees()
    learner.saves("rope.py")
    learner.reads("Picture: out/failures/rope.png\n")
    learner.presses("p")
    assert Path("out/failures/rope.png").resolve().as_uri() in learner.sees()


def test_h_gives_a_hint_for_the_layer_that_is_worked_on_and_for_the_next_once_it_is_done(learner, monkeypatch):
    monkeypatch.setattr("llama.kata.watching.watch._hint", lambda layer, folder: f"a hint for {layer} in {folder}")
    learner.presses("h")
    assert "a hint for softmax in my_llama" in learner.sees()
    learner.saves("rope.py")
    learner.presses("h")
    assert "a hint for rope in my_llama" in learner.sees()
    learner.ends(Progress(("rope",), "attention"))
    learner.presses("h")
    assert "a hint for attention in my_llama" in learner.sees()


def test_q_quits_and_an_unknown_key_does_nothing(learner):
    before = learner.runs.started[:]
    assert learner.presses("x")
    assert learner.runs.started == before
    assert not learner.presses("q")


def test_a_terminal_that_is_closed_ends_it(learner):
    assert not learner.presses(END)


def test_where_there_are_no_keys_none_are_offered():
    assert "q quit" not in Learner(has_keys=False).sees()


def test_colour_is_only_for_a_terminal_that_wants_it(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Screen(Terminal()).colour
    assert not Screen(io.StringIO()).colour
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Screen(Terminal()).colour
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not Screen(Terminal()).colour


def test_it_says_so_where_there_are_no_tests(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="there are no tests in .*; run --watch in the folder of the project"):
        watch(FOLDER)


def test_a_time_limit_is_more_than_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["kata", "my_llama", "--watch", "--time-limit", "0"]) == 2
    assert "--time-limit must be more than 0 seconds, got 0" in capsys.readouterr().err


RIGHT = "import math\n\n\n" + inspect.getsource(layer_module("cosine_schedule").naive).replace(
    "@contract(check)\ndef naive", "def cosine_schedule"
)
WRONG = RIGHT.replace("(step + 1)", "step")
ENDLESS = RIGHT.replace("    if", "    while True:\n        pass\n    if", 1)
CRASHING = RIGHT.replace("    if", "    import os\n\n    os.abort()\n    if", 1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals that Python could open")
def test_on_a_terminal_each_save_is_answered_and_q_leaves_nothing_running(tmp_path):
    import pty

    ours, theirs = pty.openpty()
    environment = INHERITED | {"LLAMA_WATCHED": str(tmp_path), "TERM": "xterm"}
    arguments = ("-m", "llama", "kata", str(tmp_path / "mine"), "cosine_schedule", "--watch")
    watching = subprocess.Popen(
        [sys.executable, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment
    )
    os.close(theirs)

    def until(words):
        text = ""
        while words not in text:
            text += (os.read(ours, 4096) or _closed()).decode()
        return text

    file = tmp_path / "mine" / "cosine_schedule.py"
    try:
        until("q quit")
        file.write_text(WRONG)
        assert "Your output is exactly what you get when" in until("q quit")
        file.write_text(CRASHING)
        assert "The process that tested cosine_schedule has died" in until("q quit")
        file.write_text(ENDLESS)
        until("tested at")
        file.write_text(RIGHT)
        answer = until("q quit")
        assert "worked examples pass" in answer
        assert re.search("cosine_schedule .*done", answer)
        os.write(ours, b"q")
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):  # nobody has the terminal open any more
            until("what nobody writes")
        assert watching.wait() == 0
    finally:
        watching.kill()
        watching.wait()
        os.close(ours)
    assert _started_in(str(tmp_path)) == []


def _closed():
    """What reading a terminal that nobody has open is on Linux; elsewhere it reads as nothing."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _started_in(mark):
    """The command lines of processes with this environment, where the system shows them."""
    return [
        (process / "cmdline").read_bytes()
        for process in Path("/proc").glob("[0-9]*")
        if _environment(process).find(f"LLAMA_WATCHED={mark}".encode()) >= 0
    ]


def _environment(process):
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""
