"""How code of others is held, so that it can end, change and borrow nothing.

    endings.py        a layer ends nothing but its own call
    surroundings.py   what the judge relies on is as it was, and put back where it is not
    borrowing.py      a layer computes by itself, and calls none of ours

Imports tolerances.
"""
