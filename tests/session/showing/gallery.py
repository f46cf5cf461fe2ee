"""`pytest --plots`: pictures of what the layers do, made by the tests that draw; no other test runs.

    def test_silu_is_relu_with_a_round_corner(silu, plot):
        plot(x, {"silu": silu(x), "relu": x.relu()}, xlabel="x")

`plot` and `imshow` stand beside the asserts and do nothing without the option. With it, each test that calls them and
passes leaves a picture (a panel for each call), and out/plots/index.html shows all in reading order.
"""

import html
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llama.layers import LAYERS, layer_module
from tests.judge.items import claim, subject_of
from tests.judge.subject import Subject
from tests.judge.telling.pictures import Panel, draw_matrix, numbers

PLOTS = Path("out") / "plots"
FIXTURES = ("plot", "imshow")
PASSED = pytest.StashKey[bool]()
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
"""Okabe and Ito 2008, "Color Universal Design": told apart by everybody."""


@pytest.fixture
def _panels(request: pytest.FixtureRequest) -> Iterator[list[Panel]]:
    """The panels of this test; if it passes, they become its picture."""
    panels: list[Panel] = []
    yield panels
    config = request.config
    if panels and config.getoption("--plots") and request.node.stash.get(PASSED, False):
        config.stash[GALLERY].add(request.node, panels)


@pytest.fixture
def plot(_panels: list[Panel]) -> Callable[..., None]:
    """`plot(x, {label: y}, title=..., xlabel=..., ylabel=..., style="o-")`: lines over x; with style="bars", bars.

    A line of two rows brings its own x, in the first row. A line whose label begins with _ is background: thin, grey.
    """

    def add(x: Any, lines: Mapping[str, Any], style: str = "-", **labels: Any) -> None:
        def draw(axes: Any) -> None:
            named = [label for label in lines if not label.startswith("_")]
            for label, line in lines.items():
                y = numbers(line)
                along, y = y if y.ndim == 2 else (numbers(x), y)
                if label.startswith("_"):
                    axes.plot(along, y, color="0.6", linewidth=0.8, zorder=1)
                elif style == "bars":
                    width = 0.8 / len(named)
                    axes.bar(along + width * (named.index(label) - (len(named) - 1) / 2), y, width, label=label)
                else:
                    axes.plot(along, y, style, label=label, markersize=4)
            axes.set(**({"title": named[0]} if len(named) == 1 else {}) | labels)
            axes.grid(alpha=0.3)
            axes.set_axisbelow(True)
            if len(named) > 1:
                axes.legend(frameon=False)
            if isinstance(x, range):
                axes.xaxis.get_major_locator().set_params(integer=True)

        _panels.append(draw)

    return add


@pytest.fixture
def imshow(_panels: list[Panel]) -> Callable[..., None]:
    """`imshow(matrix, title=..., xlabel=..., ylabel=...)`: a matrix in colours, a small one with its numbers."""

    def add(matrix: Any, signed: bool = False, **labels: Any) -> None:
        _panels.append(lambda axes: draw_matrix(axes, numbers(matrix), signed, **labels))

    return add


class Gallery:
    """The pictures of a run. Of a test that runs for several implementations the first one is kept."""

    def __init__(self) -> None:
        self.figures: dict[tuple[str, str], str] = {}
        """By layer and sentence."""

    def add(self, item: pytest.Function, panels: Sequence[Panel]) -> None:
        subject, sentence = subject_of(item), claim(item)
        assert isinstance(subject, Subject)  # pictures are of layers
        if (subject.layer, sentence) not in self.figures:
            place = f"{Path(item.location[0]).as_posix()}, drawn from {subject.implementation.name}"
            self.figures[subject.layer, sentence] = figure(sentence, place, panels)

    def write_index(self, folder: Path) -> Path:
        drawn = {layer: [f for (of, _), f in self.figures.items() if of == layer] for layer in LAYERS}
        drawn = {layer: figures for layer, figures in drawn.items() if figures}
        links = [f'<a href="#{layer}">{layer}</a>' for layer in drawn]
        sections = [section(layer, figures) for layer, figures in drawn.items()]
        path = folder / "index.html"
        folder.mkdir(parents=True, exist_ok=True)
        page = PAGE.replace("{links}", "\n".join(links)).replace("{sections}", "\n".join(sections))
        path.write_text(page, encoding="utf-8")
        return path


GALLERY = pytest.StashKey[Gallery]()


def section(layer: str, figures: Sequence[str]) -> str:
    """The pictures of a layer, below the first paragraph of its contract."""
    words = " ".join((layer_module(layer).__doc__ or "").partition("\n\n")[0].split())
    return f'<section id="{layer}"><h2>{layer}</h2>\n<p>{html.escape(words)}</p>\n{"".join(figures)}</section>'


def figure(sentence: str, place: str, panels: Sequence[Panel]) -> str:
    """A picture with its sentence: an element for the page."""
    import matplotlib as mpl  # it costs a second, which a run that does not draw need not spend

    from llama.ladder.drawings import svg

    with mpl.rc_context(
        {"axes.prop_cycle": f"cycler(color={COLOURS})", "axes.titlesize": 11, "axes.spines.right": False}
    ):
        drawn = "".join(f"<div>{svg(panel)}</div>" for panel in panels)
    words = html.escape(f"{sentence[0].upper()}{sentence[1:]}.")
    return (
        f'<figure role="img" aria-label="{words}"><div class="panels">{drawn}</div>\n'
        f"<figcaption>{words} <small>{html.escape(place)}</small></figcaption></figure>\n"
    )


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>What the layers of Llama do</title>
<style>
  :root { color-scheme: light dark; }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
  nav { display: flex; flex-wrap: wrap; gap: 0 1rem; }
  h2, nav { font-family: ui-monospace, monospace; }
  h2 { margin: 3rem 0 0; }
  h2 + p { margin: 0; }
  figure { margin: 1rem 0 2rem; }
  .panels { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
  .panels > div { flex: 1 1 min(26rem, 100%); max-width: 31rem; }
  svg { width: 100%; height: auto; }
  small { display: block; opacity: 0.7; overflow-wrap: anywhere; }
</style>
<h1>What the layers of Llama do</h1>
<p>Each picture comes from a passing test, whose name is the sentence below it.</p>
<nav>
{links}
</nav>
{sections}
</html>
"""


def draws(item: pytest.Item) -> bool:
    return any(fixture in getattr(item, "fixturenames", ()) for fixture in FIXTURES)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files in which no test draws: their imports take seconds."""
    if not config.getoption("--plots") or not collection_path.match("test_*.py"):
        return None
    return None if re.search(r"\b(plot|imshow)\b", collection_path.read_text(encoding="utf-8")) else True


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--plots") and (others := [item for item in items if not draws(item)]):
        config.hook.pytest_deselected(items=others)
        items[:] = filter(draws, items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Generator[None, Any, Any]:
    report = yield
    if call.when == "call":
        item.stash[PASSED] = report.passed
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--plots") and config.stash[GALLERY].figures:
        terminalreporter.write_line(f"pictures: {config.stash[GALLERY].write_index(PLOTS)}")
