"""How a layer is judged, and what is said where it is wrong.

Read in this order:

    subject.py        the layer under test, which remembers how it was called
    guards/           what code of others may not end, change or borrow
    apart/            what runs in the process of a layer that is judged apart
    remote/           such a layer, as the judge has it
    results.py        what it may return, whatever the values
    python_values.py  the same of layers of lists and bytes, and what differs in these
    tolerances.py     how far a right answer may lie from the exact one, and why
    assertions.py     the one way to compare: type, shape, dtype, device, finite, values
    at_once.py        calls from several threads at once
    gradients.py      the gradients of a layer beside those of the formula
    items.py          what a test is about, from pytest's point of view
    telling/          what a failing test says: where it is wrong, why, and a picture

Never uses the code under test to say what is right. Imports tests.cases, tests.zoo and the project.
"""
