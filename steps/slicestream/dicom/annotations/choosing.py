"""Which of the objects in a file are nodules: said by the user, never guessed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from slicestream.errors import AnnotationError

_SHOWN = 20


def matching(objects: Sequence[Sequence[str]], pattern: str) -> list[int]:
    """Return which objects have a name that `pattern` matches; each object is given by all its names.

    A pattern is a whole name with the wildcards * ? […], or between slashes a regular expression that is looked for
    anywhere in a name (`/nodul|lesion/`). Case does not count. Raises AnnotationError for a faulty expression.
    """
    if len(pattern) > 2 and pattern[0] == pattern[-1] == "/":
        try:
            expression = re.compile(pattern[1:-1], re.IGNORECASE)
        except re.error as error:
            raise AnnotationError(
                f"--structure {pattern}: not a regular expression ({error}). Correct it, or give the name."
            ) from error
        return [n for n, names in enumerate(objects) if any(expression.search(name) for name in names)]
    folded = pattern.strip().casefold()
    return [n for n, names in enumerate(objects) if any(_same(name.strip().casefold(), folded) for name in names)]


def listed(names: Sequence[str]) -> str:
    """Return names for a message, the first twenty."""
    shown = ", ".join(f"'{' '.join(printable(name).split())[:64]}'" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def printable(text: str) -> str:
    """Return a text from a file with a blank for all that would break a line or steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _same(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)
