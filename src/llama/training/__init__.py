"""One step of training, a whole run, and what it leaves on disk.

Read in this order:

    options.py         the flags of python -m llama train, and the presets
    preparation.py     the text, its splits, the layers and the model of a run
    trainer.py         one step: batch, loss, gradients, optimizer
    optimizer.py       clipping, AdamW and Muon
    distributed.py     one run in several processes
    evaluation.py      the loss of a whole split, and whether it is honest
    losses.py          the losses of a run, and their chart
    run_file.py        an unfinished run on disk
    interruption.py    Ctrl-C and SIGTERM let a step finish
    evaluate.py        python -m llama evaluate: the loss of a checkpoint on a text
    profiling.py       where the time of a step goes
    command.py         python -m llama train: begin or resume, train, evaluate, report

Imports everything below it but the layers themselves: it reaches them through an implementation.
"""
