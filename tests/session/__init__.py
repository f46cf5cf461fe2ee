"""What pytest does in this repository: which tests run, in which order, and what is shown at the end.

Read in this order:

    plugin.py           where it begins: options, profile of Hypothesis, the other plugins
    selection.py        whose layers are tested, and which tests of them run
    progress.py         the board of --impl
    apart.py            --apart: each layer in a process of its own
    record.py           --record: what came of each layer, for the exam
    specification.py    --spec
    gallery.py          --plots
    zoo_table.py        --zoo
    cheats_table.py     --cheats
    workers.py          what several processes count, put together
    nested_runs.py      runs of the suite within the suite
    programs.py         processes for them and for other programs, without an import of torch in each
    annotations.py      how the annotations of our own code are enforced

Imports tests.cases, tests.judge, tests.zoo, tests.peers and tests.cheats. Only tests of the suite itself, and those
that start programs, import it; so do the benchmarks.
"""
