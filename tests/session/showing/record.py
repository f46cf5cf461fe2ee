"""`pytest --impl NAME --apart --record FILE`: what came of each layer, as JSON. `python -m llama exam` reads it.

Every test runs, so that the share of those that pass is known; only the first failure of a layer is explained.
"""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests import zoo
from tests.judge.items import room
from tests.judge.remote.layers import Apart
from tests.session.choosing import claims
from tests.session.showing import progress

KINDS = {"unit": "examples", "property": "probes"}
RULES = "rules"
"""What holds for every layer."""


class Record:
    """Plugin of one session."""

    def __init__(self, path: Path):
        self.path = path
        self.kinds: dict[str, str] = {}
        self.passed: dict[str, Counter[str]] = defaultdict(Counter)
        self.asked: dict[str, Counter[str]] = defaultdict(Counter)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            general = "every_layer" in item.path.parts
            self.kinds[item.nodeid] = RULES if general else KINDS.get(room(item), RULES)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        over = report.when == "call" or (report.when == "setup" and not report.passed)
        if over and hasattr(report, "layer") and not claims.is_left_out(report) and not report.skipped:
            layer = report.layer[1]
            kind = self.kinds[report.nodeid]
            self.asked[layer][kind] += 1
            self.passed[layer][kind] += report.passed

    def pytest_sessionfinish(self) -> None:
        layers = {layer: self._row(of, layer) for of in progress.IMPLEMENTATIONS.values() for layer in of.layers}
        self.path.write_text(json.dumps({"layers": layers, "held": self._held()}))

    def _row(self, implementation: Any, layer: str) -> dict[str, Any]:
        tally = progress.TALLIES[implementation.name, layer]
        child = implementation.children[layer] if isinstance(implementation, Apart) else None
        if layer in implementation.stubs:
            state = "not written"
        elif layer in implementation.unloaded:
            state = "not loaded"
        else:
            state = "done" if tally.is_done else "failing"
        return {
            "state": state,
            "checks": {kind: [self.passed[layer][kind], count] for kind, count in sorted(self.asked[layer].items())},
            "sentence": implementation.unloaded.get(layer, "") or tally.sentence,
            "cause": tally.cause,
            "bugs": [{"name": bug.name, "clause": bug.clause} for bug in zoo.bugs(layer) if bug.name in tally.bugs],
            "claimed": str(implementation.claims[layer].about(layer)) if layer in implementation.claims else "",
            "seconds": round(child.seconds, 3) if child else None,
        }

    def _held(self) -> list[str]:
        return next((of.held for of in progress.IMPLEMENTATIONS.values() if isinstance(of, Apart)), [])
