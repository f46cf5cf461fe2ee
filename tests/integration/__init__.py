"""Whole models, training, files, the command line, and the suite itself: mostly a folder for each room of src/llama.

text/  model/  generation/  training/  ladder/  kata/    the rooms of src/llama; implementations are in model/
command_line/    python -m llama, and wrong input to it
judge/           the suite itself: failures, peers, workers, zoo, and that every layer has a file in each room
benchmarks/      the benchmarks
"""
