"""How a layer is judged, and what is said where it is wrong.

Read in this order:

    subject.py        the layer under test, which remembers how it was called
    endings.py        code of others ends nothing but its own call
    surroundings.py   and leaves everything around it as it is
    borrowing.py      whether a layer computes by itself
    results.py        what it may return, whatever the values
    tolerances.py     how far a right answer may lie from the exact one, and why
    assertions.py     the one way to compare: type, shape, dtype, device, finite, values
    gradients.py      the gradients of a layer beside those of the formula
    messages.py       what a failing test says
    locations.py      where the wrong elements lie, in words
    diagnosis.py      which known bug a wrong layer has
    pictures.py       input, expected, yours and the difference, as a picture
    items.py          what a test is about, from pytest's point of view

Never uses the code under test to say what is right. Imports tests.cases, tests.zoo and the project.
"""
