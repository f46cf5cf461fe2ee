"""What the computer gives: devices and memory, and files that are written whole or not at all.

    device.py        cpu, cuda or mps; what is fast there, and how much memory there is
    printable.py     texts of others, which may hold anything
    safe_files.py    files that appear whole or not at all, and JSON files that hold an object

Imports nothing else of the project.
"""
