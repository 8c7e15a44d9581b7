"""Command line of muquant: every command parses, makes one library call, and prints."""

from muquant_cli.group import main

__all__ = ["main"]
