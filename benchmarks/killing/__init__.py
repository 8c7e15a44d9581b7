"""Commands that are killed at any point: what `kills.py` measures.

jobs.py     the commands, what they are given, and what their results say
process.py  a command in a process of its own, which may kill itself
"""
