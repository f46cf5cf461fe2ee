"""`python -m llama kata --watch`: a layer is tested as soon as its file is saved.

watch.py       what happens when a file is saved or a key is pressed
terminal.py    its keys and its screen
warm.py        runs of the tests that begin at once
prepared.py    what they have imported before they begin
sharing.py     the tests of a run, shared by two processes
"""
