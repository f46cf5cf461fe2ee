"""A layer in a process of its own: what it does there is seen here as if it ran here, and no more."""

import contextlib
import ctypes
import os
import random
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from llama.implementation import ImplementationError
from tests import zoo
from tests.judge.apart.holding import Limits, Refusing
from tests.judge.apart.wire import Forged, Mirror, receive
from tests.judge.guards.endings import Refused
from tests.judge.remote import answers, child
from tests.judge.remote import layers as remote
from tests.judge.remote.child import Zygote
from tests.judge.remote.files import LARGEST_FILE, plain_files, python_without
from tests.session.choosing import selection

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot hold a process in this way")
LIMITS = Limits(seconds=20, megabytes=1024)


@pytest.fixture(scope="module")
def zygote():
    with Zygote() as one:
        yield one


@pytest.fixture
def apart(zygote, tmp_path):
    """A layer from its text, in a process of its own; what has been started ends with the test."""
    started = []

    def start(text, layer="silu", forbidden=(), limits=LIMITS, **others):
        folder = tmp_path / f"handed_in_{len(started)}"
        folder.mkdir()
        for name, content in ({layer: text} | others).items():
            (folder / f"{name}.py").write_text(textwrap.dedent(content), encoding="utf-8")
        started.append(remote.load(zygote, str(folder), limits, forbidden, [layer]))
        return getattr(started[-1], layer)

    yield start
    for one in started:
        one.end()


def test_values_and_gradients_of_any_order_come_from_over_there(apart):
    square = apart("def silu(x):\n    return x * x * x\n")
    x = torch.tensor([2.0, -3.0], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(square(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert square(x).tolist() == [8.0, -27.0]
    assert first.tolist() == [12.0, 27.0]
    assert second.tolist() == [12.0, -18.0]


def test_a_gradient_that_has_none_itself_says_so(apart):
    once = apart("""
        import torch
        class Silu(torch.autograd.Function):
            @staticmethod
            def forward(context, x):
                context.save_for_backward(x)
                return x * x
            @staticmethod
            @torch.autograd.function.once_differentiable
            def backward(context, upstream):
                return 2 * upstream * context.saved_tensors[0]
        silu = Silu.apply
    """)
    x, toward = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    (first,) = torch.autograd.grad(once(x), x, toward, create_graph=True)
    assert first.tolist() == [2.0, 2.0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("written", ["context.x", "context.earlier", "upstream"])
def test_a_backward_that_writes_to_what_others_need_is_refused(apart, written):
    writing = apart(f"""
        import torch
        class Silu(torch.autograd.Function):
            @staticmethod
            def forward(context, x):
                context.x, context.earlier = x.detach(), x * x
                return context.earlier
            @staticmethod
            def backward(context, upstream):
                {written}.fill_(5.0)
                return 2 * upstream
        silu = Silu.apply
    """)
    result = writing(torch.ones(2, requires_grad=True))
    with pytest.raises(Refused, match="backward has written to what it was given, or to an earlier result"):
        result.backward(torch.ones(2))


def test_a_result_that_is_cut_off_and_asks_for_a_gradient_does_both_here(apart):
    result = apart("def silu(x):\n    return x.clone().detach().requires_grad_()\n")(torch.ones(2))
    assert result.requires_grad
    assert result.is_leaf


def test_a_graph_that_a_layer_makes_although_none_is_asked_for_is_there(apart):
    making = apart("import torch\ndef silu(x):\n    with torch.enable_grad():\n        return 3 * x\n")
    x = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        result = making(x)
    result.backward(torch.ones(2))
    assert x.grad.tolist() == [3.0, 3.0]


def test_an_argument_that_is_written_to_is_written_to_here(apart):
    doubled = apart("def silu(x):\n    x.mul_(2)\n    return x + 0\n")
    x = torch.tensor([1.0, 2.0])
    version = x._version
    assert doubled(x).tolist() == [2.0, 4.0]
    assert x.tolist() == [2.0, 4.0]
    assert x._version > version


def test_a_list_that_is_changed_or_returned_is_that_list_here(apart):
    changing = apart("def bpe_merge(ids, pair, new_id):\n    ids.append(new_id)\n    return [1]\n", "bpe_merge")
    ids = [1, 2]
    assert changing(ids, (1, 2), 256) == [1]
    assert ids == [1, 2, 256]
    returned = apart("def bpe_merge(ids, pair, new_id):\n    return ids\n", "bpe_merge")
    assert returned(ids, (1, 2), 256) is ids
    new = apart("def bpe_merge(ids, pair, new_id):\n    return list(ids)\n", "bpe_merge")(ids, (1, 2), 256)
    assert new == ids
    assert new is not ids


def test_the_same_tensor_is_the_same_object_over_there_with_the_contents_of_now(apart):
    kept = apart("""
        seen = {}
        def silu(x):
            return seen.setdefault(id(x), x.clone()) + 0
    """)
    x = torch.tensor([1.0])
    assert kept(x).item() == 1.0
    x.fill_(5.0)
    assert kept(x).item() == 1.0  # the bug is seen: it has kept the result of other contents
    plain = apart("def silu(x):\n    return x + 0\n")
    assert plain(x).item() == 5.0
    x.data.fill_(6.0)
    assert plain(x).item() == 6.0


def test_a_result_that_a_later_call_writes_to_changes_here(apart):
    buffered = apart("""
        import torch
        buffer = torch.zeros(1)
        def silu(x):
            return buffer.copy_(x)
    """)
    first = buffered(torch.tensor([1.0]))
    buffered(torch.tensor([2.0]))
    assert first.item() == 2.0


def test_memory_and_its_layout_are_the_same_over_there(apart):
    told = apart("""
        import torch
        def silu(x):
            return torch.tensor([*x.stride(), x.storage_offset(), x.untyped_storage().nbytes()])
    """)
    wide = torch.zeros(4, 6, dtype=torch.float64)
    assert told(wide[1:, 2:4]).tolist() == [6, 1, 8, 4 * 6 * 8]
    assert told(wide.T).tolist() == [1, 6, 0, 4 * 6 * 8]


def test_a_view_of_an_argument_is_one_here(apart):
    x = torch.zeros(3)
    view = apart("def silu(x):\n    return x[1:]\n")(x)
    x[1] = 7.0
    assert view.tolist() == [7.0, 0.0]


def test_a_mapping_is_the_same_object_with_the_tensors_of_now(apart):
    looked_up = apart("""
        kept = {}
        def silu(weights):
            return kept.setdefault(id(weights), weights["w"]) * 0 + len(kept)
    """)
    weights = {"w": torch.zeros(1)}
    assert looked_up(weights).item() == 1
    weights["w"] = torch.ones(1)
    assert looked_up(weights).item() == 1
    assert looked_up({"w": torch.zeros(1)}).item() == 2


def test_calls_from_several_threads_run_at_once_over_there(apart):
    meeting = apart("import threading\nboth = threading.Barrier(2)\ndef silu(x):\n    both.wait()\n    return x + 1\n")
    with ThreadPoolExecutor(2) as executor:
        found = list(executor.map(meeting, (torch.zeros(1), torch.ones(1))))
    assert [result.item() for result in found] == [1.0, 2.0]


def test_a_parameter_is_one_over_there(apart):
    told = apart("import torch\ndef silu(x):\n    return torch.tensor(type(x) is torch.nn.Parameter)\n")
    assert told(torch.nn.Parameter(torch.zeros(1))).item()
    assert not told(torch.zeros(1)).item()


def test_writes_to_a_tensor_are_counted_over_there_as_here(apart):
    told = apart("import torch\ndef silu(x):\n    return torch.tensor(x._version)\n")
    x = torch.zeros(1)
    for count in range(3):
        assert (told(x).item(), x._version) == (count, count)
        x += 1


def test_a_tensor_that_is_gone_here_is_gone_over_there(apart):
    counted = apart("""
        import weakref, torch
        seen = []
        def silu(x):
            seen.append(weakref.ref(x))
            return torch.tensor(sum(one() is not None for one in seen))
    """)
    kept = torch.zeros(1)
    assert [counted(x).item() for x in (kept, torch.zeros(1))] == [1, 2]
    assert counted(torch.zeros(1)).item() == 2  # the second is gone


def test_an_entry_that_is_taken_out_of_a_mapping_is_gone_here(apart):
    weights = {"a": torch.zeros(1), "b": torch.ones(1)}
    apart("def silu(weights):\n    return weights.pop('a') + 1\n")(weights)
    assert list(weights) == ["b"]


def test_modes_hold_over_there_and_what_is_left_changed_is_changed_here(apart):
    told = apart("""
        import torch
        def silu(x):
            modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
            return torch.tensor(modes)
    """)
    x = torch.zeros(1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert told(x).tolist() == [False, False, True]
    with torch.inference_mode():
        result = told(x)
    assert result.tolist() == [False, True, False]
    assert result.is_inference()
    drawing = apart("import random\ndef silu(x):\n    random.random()\n    return x + 0\n")
    before = random.getstate()
    drawing(x)
    assert random.getstate() != before
    with pytest.raises(Refused, match="the layer changed how NumPy treats errors"):
        apart("import numpy as np\ndef silu(x):\n    np.seterr(all='ignore')\n    return x + 0\n")(x)


def test_an_error_has_its_kind_its_text_and_its_line(apart):
    wrong = apart("def silu(x):\n    raise ValueError('no such n: 3')\n")
    with pytest.raises(ValueError, match="no such n: 3") as error:
        wrong(torch.zeros(1))
    file, line = error.value.frames[-1]
    assert (Path(file).name, line) == ("silu.py", 2)


@pytest.mark.parametrize(
    ("statement", "kind", "words"),
    [
        ("{}['nothing']", KeyError, "'nothing'"),
        ("b'\\xff'.decode()", UnicodeDecodeError, "invalid start byte"),
        ("raise MemoryError('too large')", MemoryError, "too large"),
        ("raise ExceptionGroup('many', [ValueError('one')])", Exception, "many"),
        ("raise type('Own', (IndexError,), {})('of its own')", IndexError, "of its own"),
    ],
)
def test_an_error_of_any_kind_is_of_that_kind_here(apart, statement, kind, words):
    with pytest.raises(kind, match=words):
        apart(f"def silu(x):\n    {statement}\n    return x\n")(torch.zeros(1))


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        ("torch.nn.Parameter(x)", "Parameter"),
        ("'text'", "str"),
        ("x.to_sparse()", "sparse_coo"),
        ("object()", "object"),
    ],
)
def test_what_is_no_plain_tensor_goes_by_the_name_of_its_kind(apart, result, kind):
    odd = apart(f"import torch\ndef silu(x):\n    return {result}\n")(torch.ones(2))
    assert kind in type(odd).__name__


ENDS = {
    "os._exit(0)": "the process of silu has ended: exit code 0",
    "sys.exit(3)": r"the layer ended the program with sys.exit\(3\)",
    "os.kill(os.getpid(), signal.SIGSEGV)": "the process of silu has ended: a crash in C",
    "os.write(CONNECTION, b'x' * 64)": "the process of silu has answered with what is no answer",
    "os.write(CONNECTION, TO_NO_QUESTION)": "the process of silu has answered with what is no answer",
}
PRELUDE = """
import json, os, signal, stat, struct, sys
def sockets():
    for fd in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                yield fd
        except OSError:
            pass
CONNECTION = next(sockets(), 3)
BODY = json.dumps({"id": 0, "dropped": [], "writes": [], "memories": [], "tensors": []}).encode()
TO_NO_QUESTION = struct.pack("<QQ", len(BODY), 0) + BODY
"""


@pytest.mark.parametrize(("statement", "sentence"), ENDS.items())
def test_what_ends_its_process_ends_nothing_else(apart, statement, sentence):
    ending = apart(f"{PRELUDE}\ndef silu(x):\n    {statement}\n    return x\n")
    with pytest.raises(Refused, match=sentence):
        ending(torch.zeros(1))
    with pytest.raises(Refused):
        ending(torch.zeros(1))


def test_a_call_that_never_ends_is_stopped_when_its_seconds_are_used_up(apart):
    waiting = apart("import threading\ndef silu(x):\n    threading.Event().wait()\n")
    waiting.child.limits = replace(LIMITS, seconds=waiting.child.seconds)
    with pytest.raises(Refused, match="silu was stopped: its calls have taken more than"):
        waiting(torch.zeros(1))


def _system_holds():
    """Whether this system has namespaces for this user, and Landlock: asked without the code that is tested."""
    if sys.platform != "linux" or not shutil.which("unshare"):
        return False
    as_user = [] if os.getuid() == 0 else ["--user"]
    namespaces = subprocess.run(
        ["unshare", *as_user, "--pid", "--net", "--mount", "--fork", "true"], capture_output=True
    )
    landlock = ctypes.CDLL(None).syscall(444, None, 0, 1)  # landlock_create_ruleset, asked for its version
    return namespaces.returncode == 0 and landlock >= 6


HELD = pytest.mark.skipif(not _system_holds(), reason="this system cannot hold a process so")


@HELD
@pytest.mark.parametrize(
    "attempt",
    [
        "open({oracle!r}).read()",
        "os.listdir({house!r})",
        "open('/etc/passwd', 'a')",
        "open('/tmp/left_behind', 'w')",
        "os.kill({judge}, 0)",
        "open('/proc/{judge}/environ').read()",
        "socket.create_connection(('127.0.0.1', 22), 1)",
        "ctypes.CDLL(None).open({oracle!r}.encode(), 0) < 0 and int('refused')",
        "bytearray(2**31)",
        "__import__('llama.layers.model.silu').layers.model.silu.vectorized(x)",
        "__import__('tests.judge.subject')",
        "__import__('transformers')",
        "sys.modules.pop('transformers') or __import__('transformers')",
    ],
)
def test_what_is_not_its_own_is_out_of_reach(apart, attempt):
    house = Path(__file__).parents[3]
    filled = attempt.format(oracle=str(house / "src/llama/layers/model/silu.py"), house=str(house), judge=os.getpid())
    reaching = apart(f"import ctypes, os, socket, sys\ndef silu(x):\n    {filled}\n    return x + 1\n")
    with pytest.raises((OSError, MemoryError, ValueError, ImportError, NotImplementedError)):
        reaching(torch.zeros(1))


@HELD
def test_it_can_start_some_processes_and_not_many(apart):
    forking = apart("""
        import os, signal, torch
        def silu(x):
            for count in range(100):
                try:
                    if not os.fork():
                        signal.pause()
                except BlockingIOError:
                    break
            return torch.tensor(count)
    """)
    assert 0 < forking(torch.zeros(1)).item() < 50


@HELD
@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system does not tell who waits for a core")
def test_seconds_in_which_others_have_its_core_do_not_count(apart):
    crowded = apart("""
        import os, signal
        core = min(os.sched_getaffinity(0))
        os.sched_setaffinity(0, [core])
        other = os.fork()
        while not other:
            pass
        def waited():
            return int(open("/proc/self/schedstat").read().split()[1])
        enough = waited() + 5 * 10**8
        while waited() < enough:
            pass
        os.kill(other, signal.SIGKILL)
        def silu(x):
            return x + sum(range(10**6)) * 0 + 1
    """)
    crowded.child.limits = replace(LIMITS, seconds=crowded.child.seconds)  # all are used up, but for those
    assert crowded(torch.zeros(1)).item() == 1.0


@HELD
def test_the_memory_of_all_its_processes_counts(apart):
    filling = apart(
        """
        import os, signal, threading
        def silu(x):
            for _ in range(6):
                if not os.fork():
                    kept = b"x" * (250 * 2**20)
                    signal.pause()
            threading.Event().wait()
        """,
        limits=Limits(seconds=20, megabytes=512),
    )
    with pytest.raises(Refused, match="the process of silu has ended: too much memory"):
        filling(torch.zeros(1))


@HELD
def test_what_holds_a_process_is_told(apart):
    held = set(apart("def silu(x):\n    return x\n").child.info["held"])
    assert held >= {"no other processes", "no network", "its own /proc", "its own files", "no other files"}
    assert ("a user of its own" in held) == (os.getuid() == 0)


def test_a_library_with_such_layers_is_not_installed_as_far_as_a_layer_can_see(apart):
    with pytest.raises(Refused, match=r"silu.py, line 1: ModuleNotFoundError: transformers may not be imported here"):
        apart("import transformers\ndef silu(x):\n    return x\n")(torch.zeros(1))


@pytest.mark.parametrize(
    ("event", "arguments", "refused"),
    [
        ("open", ("{hidden}/silu.py", "r", 0), True),
        ("open", (b"{hidden}/silu.py", "r", 0), True),
        ("open", ("{hidden}/../{name}/silu.py", "r", 0), True),
        ("os.listdir", ("{hidden}",), True),
        ("socket.connect", (None, ("127.0.0.1", 22)), True),
        ("open", ("{hidden}er/silu.py", "r", 0), False),
        ("open", (3, "r", 0), False),
        ("import", ("{hidden}",), False),
    ],
)
def test_python_itself_refuses_what_is_hidden_where_the_system_cannot(tmp_path, event, arguments, refused):
    def filled(value):
        if isinstance(value, bytes):
            return filled(value.decode()).encode()
        return value.format(hidden=tmp_path, name=tmp_path.name) if isinstance(value, str) else value

    hook = Refusing([str(tmp_path)])
    with pytest.raises(PermissionError) if refused else contextlib.nullcontext():
        hook(event, tuple(map(filled, arguments)))


def _running(marker):
    """The processes, of anybody, that have it among their arguments."""
    found = []
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended since
            found += [arguments] if marker.encode() in arguments.read_bytes() else []
    return found


@pytest.fixture
def zygote_without_namespaces(monkeypatch):
    start = "apart.holding.leave_the_others = list\napart.zygote.main"
    monkeypatch.setattr(child, "START", child.START.replace("apart.zygote.main", start))
    with Zygote() as one:
        yield one


IN_PROC = pytest.mark.skipif(
    sys.platform != "linux" or not Path("/proc/thread-self/children").exists(),
    reason="without namespaces, what a process has started is found in /proc",
)


@pytest.mark.parametrize(
    "which", [pytest.param("zygote", marks=HELD), pytest.param("zygote_without_namespaces", marks=IN_PROC)]
)
def test_what_it_has_started_ends_with_it(request, tmp_path, which):
    zygote = request.getfixturevalue(which)
    folder = tmp_path / "daemons"
    folder.mkdir()
    (folder / "silu.py").write_text(
        "import subprocess, sys\n"
        "def silu(x):\n"
        "    waiting = 'import signal; print(1, flush=True); signal.pause()'\n"
        "    started = subprocess.Popen(\n"
        f"        [sys.executable, '-c', waiting, {str(folder)!r}], start_new_session=True, stdout=subprocess.PIPE\n"
        "    )\n"
        "    started.stdout.readline()\n"
        "    return x + 1\n"
    )
    loaded = remote.load(zygote, str(folder), LIMITS)
    assert loaded.silu(torch.zeros(1)).item() == 1.0
    box = loaded.children["silu"].box
    assert box.exists()
    assert len(_running(str(folder))) == 1
    loaded.end()
    assert _running(str(folder)) == []
    assert not box.exists()


def test_a_function_that_comes_down_to_others_is_seen_too(apart):
    text = "import torch\nname = 'nor' + 'malize'\ndef silu(x):\n    return getattr(torch.nn.functional, name)(x)\n"
    with pytest.raises(Refused, match=r"calls torch.nn.functional.normalize, which is forbidden"):
        apart(text, forbidden=["torch.nn.functional.normalize"])(torch.ones(2))


@pytest.mark.parametrize(
    "text",
    [
        "import torch.nn.functional as F\ndef silu(x):\n    return F.silu(x)\n",
        "from torch.nn.functional import silu as it\ndef silu(x):\n    return it(x)\n",
        "import torch\nname = 'si' + 'lu'\ndef silu(x):\n    return getattr(torch.nn.functional, name)(x)\n",
        "import torch\nname = 'si' + 'lu'\ndef silu(x):\n    return getattr(torch.ops.aten, name)(x)\n",
        "import torch\nlayer = torch.nn.SiLU()\ndef silu(x):\n    return layer(x)\n",
    ],
)
def test_a_function_that_is_forbidden_is_seen_under_any_name(apart, text):
    with pytest.raises(Refused, match="silu, which is forbidden"):
        apart(text, forbidden=["torch.nn.functional.silu"])(torch.zeros(2))
    assert apart(text)(torch.zeros(2)).tolist() == [0.0, 0.0]


def test_a_file_that_names_what_is_forbidden_costs_its_own_layer_alone(apart):
    named = "import torch\ndef softmax(x):\n    return torch.softmax(x, -1)\n"
    silu = apart("def silu(x):\n    return x + 1\n", forbidden=["torch.softmax"], softmax=named)
    assert silu(torch.zeros(1)).item() == 1.0
    with pytest.raises(Refused, match=r"softmax.py, line 3 names torch.softmax, which is forbidden"):
        apart(named, layer="softmax", forbidden=["torch.softmax"])(torch.zeros(1))


def test_a_layer_beneath_may_be_made_of_what_is_forbidden(apart):
    text = """
        from llama import implementation
        layers = implementation.load("fused")
        def self_attention(x):
            return layers.silu(x)
    """
    assert apart(text, layer="self_attention", forbidden=["fused"])(torch.zeros(2)).tolist() == [0.0, 0.0]


def test_a_function_that_torch_does_not_have_cannot_be_forbidden(apart):
    with pytest.raises(ValueError, match=r"torch has no torch.nn.functional.rms_nrom; write it as in"):
        apart("def silu(x):\n    return x\n", forbidden=["torch.nn.functional.rms_nrom"])


def test_a_composed_layer_finds_the_layers_beneath_it_and_none_above(apart):
    text = """
        from llama import implementation
        layers = implementation.load("vectorized")
        def self_attention(x):
            return layers.silu(x) if x.sum() < 1 else layers.decoder_layer(x)
    """
    composed = apart(text, layer="self_attention")
    assert composed(torch.zeros(2)).tolist() == [0.0, 0.0]
    with pytest.raises(NotImplementedError, match="decoder_layer is withheld"):
        composed(torch.ones(2))


def test_a_file_that_does_not_import_is_that_layer_alone(apart):
    broken = apart("def silu(x:\n", softmax="def softmax(x):\n    return x\n")
    with pytest.raises(Refused, match=r"silu.py, line 1: SyntaxError"):
        broken(torch.zeros(1))


def test_a_file_that_imports_another_beside_it_finds_it_but_no_link_is_followed(apart, zygote, tmp_path):
    twice = apart(
        "from helpers import twice\ndef silu(x):\n    return twice(x)\n", helpers="def twice(x):\n    return 2 * x\n"
    )
    assert twice(torch.ones(1)).item() == 2.0
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "silu.py").symlink_to(Path(__file__).parents[3] / "src" / "llama" / "layers" / "model" / "silu.py")
    with pytest.raises(ImplementationError, match="defines no layer"):
        remote.load(zygote, str(linked), LIMITS)


TENSOR = {
    **{"number": 1, "memory": 3, "dtype": "float32", "size": [2], "stride": [1], "offset": 0, "version": 0},
    **{"requires_grad": False, "is_leaf": True, "inference": False, "parameter": False},
}
ANSWER = {"id": 4, "dropped": [], "writes": [], "memories": [[3, 8]], "tensors": [TENSOR], "versions": {"1": 0}}


@pytest.mark.parametrize(
    "forged",
    [
        {"id": 5},
        {"id": float("inf")},
        {"id": True},
        {"dropped": None},
        {"writes": ["3"]},
        {"memories": [[3]]},
        {"tensors": [TENSOR | {"dtype": "float31"}]},
        {"tensors": [TENSOR | {"size": [2**14, 2**14], "stride": [0, 0]}]},
        {"tensors": [TENSOR | {"size": "2"}]},
        {"tensors": [{}]},
        {"versions": {"1": 2**80}},
        {"left": ["torch's default dtype"]},
        {"raised": "ValueError"},
        {"info": {"file": 5}},
        {"graph": 3},
    ],
)
def test_an_answer_that_no_worker_sends_is_not_looked_at_further(forged):
    answers.check(ANSWER, {4})
    with pytest.raises(Forged):
        answers.check(ANSWER | forged, {4})


@pytest.mark.parametrize(
    "forged",
    [
        {"tensors": [TENSOR | {"size": [3]}]},
        {"tensors": [TENSOR | {"offset": 1}]},
        {"tensors": [TENSOR | {"stride": [-1]}]},
        {"memories": [[3, 2**40]]},
    ],
)
def test_a_tensor_lies_within_its_memory_and_its_memory_is_as_large_as_what_came(forged):
    content = [torch.zeros(8, dtype=torch.uint8)]
    assert Mirror(first=0, weak=True).take(ANSWER, content, as_arguments=False)[0].tolist() == [0.0, 0.0]
    with pytest.raises(Forged):
        Mirror(first=0, weak=True).take(ANSWER | forged, content, as_arguments=False)


class _Dripping:
    """A connection on which there is always one byte more, as long as somebody waits for it."""

    def settimeout(self, seconds):
        self.waits = seconds > 0.001

    def recv_into(self, view):
        if not self.waits:
            raise TimeoutError
        view[0] = 1
        return 1


def test_an_answer_that_comes_byte_by_byte_has_no_more_time_than_another():
    seconds = iter([3.0, 2.0, 1.0, 0.0, 0.0])
    with pytest.raises(TimeoutError):
        receive(_Dripping(), 2**20, lambda: next(seconds))


def test_what_a_layer_says_is_short_and_steers_no_terminal():
    assert answers.text("\x1b[31mred\ud800") == "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}"
    assert len(answers.text("x" * 10**6)) == answers.LONGEST


def test_a_submission_is_its_plain_files_of_a_usual_size(tmp_path):
    (tmp_path / "silu.py").write_text("x = 1\n")
    (tmp_path / "rope.py").mkdir()
    (tmp_path / "linear.py").write_bytes(b"#" * (LARGEST_FILE + 1))
    (tmp_path / "softmax.py").symlink_to(tmp_path / "silu.py")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "sample.py")
    assert plain_files(tmp_path) == [tmp_path / "silu.py"]


def test_a_library_that_is_refused_is_not_among_what_can_be_read():
    found, left = ({Path(path).name for path in python_without(refused)} for refused in ([], ["numpy"]))
    assert found >= {"numpy", "torch"}
    assert left & {"numpy", "torch"} == {"torch"}


@pytest.mark.suite({}, "--zoo", "-x", "-q", "--apart", "-k", "silu")
def test_every_bug_of_a_layer_is_killed_apart_too(run):
    count = len(zoo.bugs("silu"))
    assert run.returncode == 0
    assert f"{count} bugs, {count} killed" in run.stdout


SINGLE = "def silu(x):\n    return x.detach() * x.detach().sigmoid()\n"
LEAVING = """
import os
import threading

import torch

CALLS = []


def silu(x):
    CALLS.append(x.shape)
    if len(CALLS) == 4:
        threading.Thread(target=os._exit, args=(0,)).start()
        threading.Event().wait()
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * wide.sigmoid()).to(x.dtype)
"""


@pytest.mark.suite({"mine/silu.py": LEAVING}, "--impl", "{folder}/mine", "-k", "silu", "--apart")
def test_a_right_layer_that_ends_its_process_with_success_is_not_done(run):
    assert run.returncode == 1
    assert "the process of silu has ended: exit code 0" in run.stdout
    assert "silu is not right yet" in run.stdout


@pytest.mark.suite(
    {"mine/silu.py": SINGLE}, "--impl", "{folder}/mine", "-k", "silu", "--apart", "--claims", "float32, forward"
)
def test_what_is_claimed_is_all_that_is_asked_apart_too(run):
    assert run.returncode == 0
    assert "silu is done (claimed: float32, forward)" in run.stdout


@pytest.mark.parametrize("option", ["--forbid=fused", "--allow=transformers", "--time-limit=5", "--memory-limit=5"])
def test_options_of_processes_are_refused_where_there_are_none(option):
    name, _, value = option.partition("=")
    asked = SimpleNamespace(getoption=lambda of: value if of == name else None)
    with pytest.raises(pytest.UsageError, match=f"{name} is for layers .* it needs --apart"):
        selection.choose(asked)
