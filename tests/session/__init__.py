"""What pytest does in this repository: which tests run, in which order, and what is shown at the end.

Read in this order:

    plugin.py    where it begins: options, profile of Hypothesis, the other plugins
    choosing/    which tests run, and of whose layers
    showing/     what is shown at the end, or kept
    running/     several processes, and runs within a run

Imports tests.cases, tests.judge, tests.zoo, tests.peers and tests.cheats. Only tests of the suite itself, and those
that start programs, import it; so do the benchmarks.
"""
