"""The specification: what each layer of Llama is, in sentences that are run.

    unit/           worked examples that a person can check on paper
    property/       equivalence with the naive loops, and the invariants
    integration/    the whole model, training, checkpoints, the command line, and this suite itself
    cases/          what the layers are called with
    judge/          how a result is judged, and what is said where it is wrong
    session/        what pytest does in this repository
    zoo/            the bugs that people really make; the suite kills every one
    peers/          right layers that look nothing like ours; the suite leaves every one green

A test finds the layer under test in a fixture of the layer's name. Rooms stand in this order, each importing from those
before it: cases, zoo, judge, peers, session. Unit and property tests import from cases and
judge, integration tests from all.
"""
