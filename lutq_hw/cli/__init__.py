"""The command line, one file per command.

A file ``NAME.py`` in this folder (names beginning with an underscore are shared parts) is the command ``NAME``, and
adding one is adding that file. It has

``HELP``
    one line for the list of commands;
module docstring
    the text of ``NAME --help``: what it does, then one or two examples;
``configure(parser)``
    adds the options to an `argparse.ArgumentParser`; `lutq_hw.cli._options` has those that commands share;
``run(args) -> int``
    does the work and returns the exit status: 0, or 1 if it ran but the answer is no (a comparison that failed).

At module level a command imports only the standard library and this package, so that ``--help`` stays fast; whatever
needs numpy or Amaranth is imported inside ``run``. Results go to stdout, and with ``--json`` nothing else does;
progress goes to stderr through `lutq_hw.progress.TextProgress`. A user's mistake is a `LutqError`: one line on stderr
and exit status 2 (1 for a `ToolError`); any other exception is a bug and shows its traceback.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from .. import __version__
from ..errors import LutqError, ToolError

PROGRAM = "python -m lutq_hw"
INTERRUPTED = 130
BROKEN_PIPE = 141


def commands() -> list[str]:
    """Names of all commands, from the files of this folder."""
    files = Path(__file__).parent.glob("[!_]*.py")
    return sorted(file.stem for file in files)


def parser(names: Sequence[str]) -> argparse.ArgumentParser:
    """Argument parser with the commands ``names``; only their modules are imported."""
    top = argparse.ArgumentParser(
        prog=PROGRAM, description="Networks with small trained dictionaries as exact hardware.",
        epilog=f"'{PROGRAM} COMMAND --help' explains a command.")
    top.add_argument("--version", action="version", version=f"lutq {__version__}")
    choices = top.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for name in names:
        module = import_module(f"{__name__}.{name}")
        command = choices.add_parser(name, help=module.HELP, description=module.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
        module.configure(command)
        command.set_defaults(run=module.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in ``arguments`` (``sys.argv`` by default) and return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    names = commands()
    if threading.current_thread() is threading.main_thread():
        # `kill` and `timeout` end a command as Ctrl-C does: tools are stopped, half-written folders removed.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    wanted = arguments[0] if arguments else None
    try:
        args = parser([wanted] if wanted in names else names).parse_args(arguments)
        status = args.run(args)
        sys.stdout.flush()
        return status
    except LutqError as error:
        print(f"lutq: {error}", file=sys.stderr)
        return 1 if isinstance(error, ToolError) else 2
    except KeyboardInterrupt:
        print("lutq: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return reader_left()


def reader_left() -> int:
    """Exit status after whatever read standard output (head, less) has left; nothing more is written there."""
    # Python would complain again while it flushes stdout at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
