"""Command line of muquant."""
