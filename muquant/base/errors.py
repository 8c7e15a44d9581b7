"""The one error that means: what you gave cannot be used, and here is what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """An input that the caller can mend: a file, an option, a weight, a model.

    The message is one line that names the culprit, what was expected, what was found and what to do. The
    command line prints it and exits with status 2; any other exception is a bug and keeps its traceback.
    """


@contextmanager
def naming(culprit: str) -> Iterator[None]:
    """Put `culprit` in front of the message of an `InputError` raised inside."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{culprit}: {error}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of a foreign error's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
