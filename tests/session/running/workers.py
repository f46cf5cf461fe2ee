"""`pytest -n 2`: what the workers of pytest-xdist count, put together in the process that reports.

Each worker collects all tests and runs some of them. Their reports are sent, and so the failures and the outcomes are
known; what is sent here besides is how many tests of each layer there are, and what killed which bug of the zoo.

Of failures each worker knows its own alone, so with --impl the whole stack may be tested by one while another has seen
a layer of it fail; in a single process it waits until the layers are right.
"""

import pytest

from tests.session.choosing.selection import UNDER_TEST
from tests.session.showing.progress import IMPLEMENTATIONS, TALLIES
from tests.session.showing.zoo_table import Table


def _table(config: pytest.Config) -> Table | None:
    return next((plugin for plugin in config.pluginmanager.get_plugins() if isinstance(plugin, Table)), None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["selected"] = [[*key, tally.selected] for key, tally in TALLIES.items()]
        if table := _table(session.config):
            output["verdicts"] = [[*of, killed] for of, killed in table.flat()]


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which need not be installed
def pytest_testnodedown(node) -> None:
    output, config = getattr(node, "workeroutput", {}), node.config  # one that crashed has sent nothing
    for name, layer, selected in output.get("selected", []):
        TALLIES[name, layer].selected = selected
        IMPLEMENTATIONS.update(
            {i.name: i for i in config.stash[UNDER_TEST].implementations if i.name == name and i.source}
        )
    if table := _table(config):
        for layer, bug, test, killed in output.get("verdicts", []):
            table.record(layer, bug, test, killed)
