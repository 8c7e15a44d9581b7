"""Command line of muquant: every command parses, calls the library, and prints.

group.py    the group of commands, each imported when it runs
commands/   one file each
steps/      what commands do once they have parsed: a call under a bar, and its tables
options/    options, and how their texts are read
sources/    a model by a text that names it
tables.py   tables that several commands print
output.py   tables, progress, `--json`
streams.py  errors in one line, and what the system says no to
"""

from muquant_cli.group import main

__all__ = ["main"]
