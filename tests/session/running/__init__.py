"""How tests run: in several processes, and what they start.

    annotations.py      how the annotations of our own code are enforced
    workers.py          what several processes count, put together
    nested_runs.py      runs of the suite within the suite
    programs.py         processes for them and for other programs, without an import of torch in each

Imports choosing and showing.
"""
