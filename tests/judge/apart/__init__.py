"""What runs in the process of a layer that is judged apart. It imports torch and NumPy, and nothing else of ours.

Read in this order:

    wire.py        messages, and tensors that both sides hold: what one side writes to, the other sees at the next call
    state.py       what a call leaves as it was
    outcomes.py    what comes of it: a plain result, an error, or the end of something
    worker.py      takes a call, answers with what came of it
    forbidden.py   which functions of torch a layer has called that it may not call
    holding.py     what the process may read, reach and use up
    zygote.py      where the process comes from

The judge's side is tests/judge/remote.
"""
