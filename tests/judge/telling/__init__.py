"""What a failing test says. Read in this order:

    messages.py       the lines of a failure, of which the answer is the last
    locations.py      where the wrong elements lie, in words
    pictures.py       the input, what was expected, what came, and the difference
    diagnosis.py      the known bug that does what the layer does
    repairs.py        where none does: the one change that would make the result right
    errors.py         an error of Python or torch: its line, what stands in it, and advice
    sayings.py        advice for errors whose text says enough

Imports the rest of the judge.
"""
