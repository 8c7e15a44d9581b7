"""What a command does once it has parsed: a call of the library under a bar, and its tables.

Commands do not import each other; `demo` takes its steps from here.

training.py       `train`
verification.py   `verify`
benchmark.py      `bench`
inspection.py     `inspect` of .mq files and run folders
amplification.py  `inspect --amplification`
graphs.py         `compress` of files that hold a graph
"""
