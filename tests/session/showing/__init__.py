"""What is shown of a run, or kept of it.

    progress.py         --impl: the board
    causes.py           failures of one cause as one paragraph
    record.py           --record: what came of each layer, for the exam
    specification.py    --spec
    gallery.py          --plots
    zoo_table.py        --zoo
    others.py           --as: what the tests of others would let pass
    cheats_table.py     --cheats

Imports choosing.
"""
