"""`python -m llama exam`: the layers of others judged in processes that they cannot leave, and what came of it.

    command.py       the command: what is asked, and what is written
    assignment.py    what a teacher has set: layers, points, what is forbidden
    judging.py       one submission after another, by the tests of the project
    marks.py         a table, JSON, JUnit's XML, a CSV file
    class_page.py    a page of the class, from class_page.html

Imports kata and what stands beneath. The judge itself is tests/judge/apart.
"""
