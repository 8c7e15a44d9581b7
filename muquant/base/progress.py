"""How a caller is told how far a long task has come."""

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""(done, total), after each part of the task"""
