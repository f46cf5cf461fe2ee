"""Write the layers yourself: stubs to begin with, a board to see how far you have come.

Read in this order:

    command.py           python -m llama kata
    stubs.py             the file that a learner begins with
    board.py             how far an implementation has come, layer by layer
    hints/               why each layer is there, what to read, and hints: a file for each layer
    hint_file.py         such a file, read
    hint.py              python -m llama hint
    solution.py          python -m llama solution
    watching/            python -m llama kata --watch: a layer is tested as soon as its file is saved
    report.py            python -m llama report
    exam/                python -m llama exam: the layers of others, judged apart
    pytest_options.py    --impl, --device and --record, as a plugin of pytest

Imports machine, layers and implementation.
"""
