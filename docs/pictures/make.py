"""Make the pictures of README.md and docs/ from real runs, beside this file.

    python docs/pictures/make.py

failing_test.svg is a terminal: `pytest --impl my_llama -k rms_norm` on a layer with a common bug, without header and
last lines. failure.png is what such a run draws of another bug. ladder.svg shows three rungs of
`python -m llama ladder`: the loss that each model reports, and its loss when each position is computed from its own
prefix alone. All runs together take half a minute.

It needs `pip install -e '.[dev]'`, and TinyShakespeare, which `python -m llama` has fetched or LLAMA_DATA_DIR holds.
"""

import io
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COLUMNS = 80

LAYER = """\
def rms_norm(x, weight, eps=1e-5):
    return x / ((x * x).mean(-1, keepdim=True).sqrt() + eps) * weight
"""

OVER_TOKENS = """\
def rms_norm(x, weight, eps=1e-5):
    return x / ((x * x).mean(-2, keepdim=True) + eps).sqrt() * weight
"""

# The fonts that a browser has: rich's own template fetches one.
TERMINAL = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px/{line_height}px ui-monospace, Menlo, Consolas, monospace; }}
{styles}
</style>
<rect width="{width}" height="{height}" rx="8" fill="#161b22"/>
<g transform="translate({terminal_x}, 20)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""

RUNGS = {
    "baseline": "sees one character",
    "attention-without-a-mask": "sees the whole window",
    "attention": "sees what is before it",
}
SVG = '<svg viewBox="0 0 720 {height}" xmlns="http://www.w3.org/2000/svg">'
CHART_STYLE = """\
text { font: 20px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
.small { font-size: 17px; fill: #59636e; }
.name { font-weight: 600; }
.inside { fill: #ffffff; }
.card { fill: #f6f8fa; } .reported { fill: #6e7781; } .honest { fill: #0969da; } .even { stroke: #59636e; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .small { fill: #9198a1; } .inside { fill: #ffffff; } .card { fill: #161b22; }
  .reported { fill: #6e7681; } .honest { fill: #1f6feb; } .even { stroke: #9198a1; }
}"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        failing_test(Path(folder) / "my_llama")
        failure(Path(folder) / "wrong" / "my_llama")
        ladder(Path(folder) / "ladder")


def failing_test(folder: Path) -> None:
    folder.mkdir()
    (folder / "rms_norm.py").write_text(LAYER, encoding="utf-8")
    run = python("-m", "pytest", "--color=yes", "--impl", str(folder), "-k", "rms_norm")
    printed = run.stdout.replace(str(folder), "my_llama")
    shown = printed[printed.index("tests/unit/test_written.py") : printed.rindex("\n", 0, printed.index("!!!"))]

    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True)
    console.print(Text("$ cat my_llama/rms_norm.py", style="bold"))
    console.print(Text(LAYER))
    console.print(Text("$ pytest --impl my_llama -k rms_norm", style="bold"))
    console.print(Text.from_ansi(shown))
    svg = console.export_svg(code_format=TERMINAL, theme=SVG_EXPORT_THEME, unique_id="failing")
    write(HERE / "failing_test.svg", svg)


def failure(folder: Path) -> None:
    """The picture of a test that fails, of a layer that takes the mean over the tokens instead of the features."""
    folder.mkdir(parents=True)
    (folder / "rms_norm.py").write_text(OVER_TOKENS, encoding="utf-8")
    test = "tests/unit/model/test_rms_norm.py::test_each_token_is_normalised_by_itself"
    printed = python("-m", "pytest", "--color=no", test, "--impl", str(folder)).stdout
    drawn = next(line for line in printed.splitlines() if line.startswith("Picture: ")).removeprefix("Picture: ")
    path = HERE / "failure.png"
    shutil.copy(ROOT / drawn, path)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


def ladder(folder: Path) -> None:
    run = python("-m", "llama", "ladder", "--rungs", *RUNGS, "--out", str(folder), check=True)
    setting = next(line for line in run.stdout.splitlines() if line.startswith("Corpus "))
    rungs = json.loads((folder / "ladder.json").read_text(encoding="utf-8"))["rungs"]
    write(HERE / "ladder.svg", chart(rungs, *setting.split("; ")))


def chart(rungs: list[dict], setting: str, unit: str) -> str:
    """Two bars for each rung, and a line at the loss of guessing evenly among the 65 characters."""
    left, top, apart, scale, even = 24, 124, 112, 158, math.log(65)
    bottom, line = top + apart * len(rungs) - 20, left + scale * even
    lines = [
        f'<rect class="card" width="720" height="{bottom + 76}" rx="8"/>',
        f'<rect class="reported" x="{left}" y="28" width="20" height="20" rx="3"/>',
        text(left + 28, 45, "validation loss as reported"),
        f'<rect class="honest" x="{left + 330}" y="28" width="20" height="20" rx="3"/>',
        text(left + 358, 45, "from prefixes alone"),
        text(left, 80, unit, "small"),
        f'<path class="even" d="M{line:.1f} {top + 12}V{bottom}" stroke-width="2" stroke-dasharray="4 4"/>',
        text(line, bottom + 22, f"guessing evenly: ln 65 = {even:.2f}", "small", "end"),
        text(left, bottom + 56, setting, "small"),
    ]
    for i, rung in enumerate(rungs):
        y = top + apart * i
        name = f'<tspan class="name">{rung["rung"]}</tspan> <tspan class="small" dx="8">{RUNGS[rung["rung"]]}</tspan>'
        lines.append(f'<text x="{left}" y="{y}">{name}</text>')
        for j, (kind, loss) in enumerate((("reported", rung["validation_loss"]), ("honest", rung["prefix_loss"]))):
            bar, end = y + 12 + 32 * j, left + scale * loss
            lines.append(f'<rect class="{kind}" x="{left}" y="{bar}" width="{end - left:.1f}" height="26" rx="3"/>')
            inside = end > left + 80
            at = (end - 10, bar + 20, f"{loss:.2f}", "inside", "end") if inside else (end + 8, bar + 20, f"{loss:.2f}")
            lines.append(text(*at))
    return "\n".join([SVG.format(height=bottom + 76), "<style>", CHART_STYLE, "</style>", *lines, "</svg>", ""])


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def python(*arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": str(COLUMNS), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=check
    )


def write(path: Path, svg: str) -> None:
    path.write_text(svg, encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
