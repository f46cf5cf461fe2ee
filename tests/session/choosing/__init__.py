"""Which tests run, and of whose layers.

selection.py    whose layers are tested, and which tests of them run, in which order
keyword.py      -k, where it names layers
claims.py       --claims: what is left out
apart.py        --apart: each layer in a process of its own
"""
