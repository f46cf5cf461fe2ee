"""`pytest --plots`: pictures of what the layers do, made by the tests.

    def test_silu_is_relu_with_a_round_corner(silu, plot):
        plot(x, {"silu": silu(x), "relu": x.relu()}, xlabel="x")

`plot` and `imshow` stand beside the asserts and do nothing without the option. With it, each test that calls them
leaves a picture (a panel for each call), and out/plots/index.html shows all in reading order.
"""

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.judge.items import claim, subject_of
from tests.judge.pictures import Panel, draw_matrix, numbers, save
from tests.judge.subject import Subject

PLOTS = Path("out") / "plots"


@pytest.fixture
def _panels(request: pytest.FixtureRequest) -> Iterator[list[Panel]]:
    """The panels of this test; at its end they become one picture."""
    panels: list[Panel] = []
    yield panels
    if panels and request.config.getoption("--plots"):
        request.config.stash[GALLERY].add(request.node, panels)


@pytest.fixture
def plot(_panels: list[Panel]) -> Callable[..., None]:
    """`plot(x, {label: y}, title=..., xlabel=..., ylabel=..., style="o-")`: lines over x."""

    def add(x: Any, lines: Mapping[str, Any], style: str = "-", **labels: Any) -> None:
        def draw(axes: Any) -> None:
            for label, y in lines.items():
                axes.plot(numbers(x), numbers(y), style, label=label, markersize=4)
            axes.set(**({"title": next(iter(lines))} if len(lines) == 1 else {}) | labels)
            axes.grid(alpha=0.3)
            if len(lines) > 1:
                axes.legend()
            if isinstance(x, range):
                axes.xaxis.get_major_locator().set_params(integer=True)

        _panels.append(draw)

    return add


@pytest.fixture
def imshow(_panels: list[Panel]) -> Callable[..., None]:
    """`imshow(matrix, title=..., xlabel=..., ylabel=...)`: a matrix in colours; what is not finite stays grey."""

    def add(matrix: Any, signed: bool = False, **labels: Any) -> None:
        _panels.append(lambda axes: draw_matrix(axes, numbers(matrix), signed, **labels))

    return add


class Gallery:
    """The pictures of a run. Of a test that runs for several implementations the first one is kept."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[str, str, str]] = {}

    def add(self, item: pytest.Function, panels: Sequence[Panel]) -> None:
        subject = subject_of(item)
        assert isinstance(subject, Subject)  # pictures are of layers
        file = f"{subject.layer}-{item.originalname.removeprefix('test_')}.png"
        if file not in self.entries:
            save(PLOTS / file, panels)
            self.entries[file] = (subject.layer, claim(item), file)

    def write_index(self, layers: Sequence[str]) -> Path:
        in_order = sorted(self.entries.values(), key=lambda entry: layers.index(entry[0]))
        figures = [
            f'<figure><h2>{layer}</h2><img src="{html.escape(file)}" alt="{html.escape(sentence)}">'
            f"<figcaption>{html.escape(sentence[0].upper() + sentence[1:])}.</figcaption></figure>"
            for layer, sentence, file in in_order
        ]
        path = PLOTS / "index.html"
        path.write_text(PAGE.format(figures="\n".join(figures)), encoding="utf-8")
        return path


GALLERY = pytest.StashKey[Gallery]()


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>What the layers of Llama do</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
  figure {{ margin: 3rem 0; }}
  h2 {{ font-family: ui-monospace, monospace; }}
  img {{ width: 100%; border-radius: 6px; background: white; }}
</style>
<h1>What the layers of Llama do</h1>
<p>Each picture comes from a passing test, whose name is the sentence below it.</p>
{figures}
</html>
"""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--plots") and config.stash[GALLERY].entries:
        from llama.layers import LAYERS

        terminalreporter.write_line(f"pictures: {config.stash[GALLERY].write_index(LAYERS)}")
