"""Imports of frameworks, which this package does without until a module that needs one is imported."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def imports_of(extra: str) -> Iterator[None]:
    """Around the imports that `wtacrs.<extra>` begins with. Where one of them is not installed, the `ImportError` names
    the extra of this package that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f"wtacrs.{extra} requires {error.name}, which is not installed: it comes with the extra [{extra}], as by "
            f"pip install './python[{extra}]' in a clone of wtacrs",
            name=error.name,
        ) from error
