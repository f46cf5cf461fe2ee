"""A layer in a process of its own, as the judge has it.

    layers = load(zygote, "my_llama", Limits(seconds=60, megabytes=2048))
    layers.rms_norm(x, weight)       # computed over there, and its gradients too

    package.py     the stand-in for our package: how layers are loaded, and the layers beneath
    files.py       what else it finds: its submission, and Python without the layers of others
    answers.py     whether an answer can be one, before any of it is used
    child.py       the process: starts it, asks it, ends it
    layers.py      an Implementation of such layers

Imports apart, which is the other side, and guards.
"""
