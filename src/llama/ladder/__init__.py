"""Nine models from a baseline to Llama, one change at a time, and the page that compares them.

Read in this order:

    rungs.py         what each rung changes
    one_block.py     the models of the lower rungs
    climb.py         train a rung, and ask it everything
    tutorial.py      the model of the tutorial that this project grew from
    comparison.py    the best rung beside the tutorial's model, and without each of its parts
    command.py       python -m llama ladder
    report.py        the table, and the sections of the page
    pictures.py      what is drawn for the page; drawings.py draws it
    web_page.py      the page itself, in web_page.html

Imports everything below it but the layers themselves.
"""
