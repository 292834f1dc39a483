"""The errors that a user can cause. Each carries one sentence: what, where, what was expected, what to do.

The command line prints that sentence and exits with 2; every other exception is a bug and keeps its traceback.
"""

from __future__ import annotations


class LutqError(Exception):
    """Base of every error whose text is meant for the user."""


class ModelError(LutqError):
    """A network or a model file that cannot exist."""


class InputError(LutqError):
    """An image file, option or argument that cannot be used."""


class PlanError(LutqError):
    """A plan that does not fit its network or its board."""


class ToolError(LutqError):
    """An external tool that is missing, failed, or produced something unusable."""


class LinkError(LutqError):
    """A board that does not answer, answers wrongly, or holds another network."""


def reason(error: BaseException) -> str:
    """What an exception of other people's code says, as part of a sentence: how it begins, or its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    begin = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return begin.partition(". ")[0].rstrip(".")
