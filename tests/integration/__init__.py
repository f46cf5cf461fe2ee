"""Whole models, training, files, the command line, and the suite itself: a folder for each room of src/llama, and more.

text/  model/  generation/  training/  ladder/  kata/    the rooms of src/llama
command_line/    python -m llama, and wrong input to it
judge/           the suite itself: failures, peers, workers, zoo
benchmarks/      the benchmarks
"""
