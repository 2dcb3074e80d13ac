"""Running other programs, and turning failures into one line of error."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Sequence, Union

ROOT = Path(__file__).resolve().parents[2]

Words = Sequence[Union[str, "os.PathLike[str]"]]


class BenchError(Exception):
    """A failure that the message explains; no traceback is needed."""


def show(command: Words) -> str:
    """The command line as a person would type it."""
    return shlex.join(map(str, command))


def ended(code: int) -> str:
    """How a process ended, from its return code."""
    return f"signal {-code}" if code < 0 else f"exit status {code}"


def run(command: Words) -> None:
    """Prints and runs a command that uses our standard output and error."""
    print(f"$ {show(command)}", flush=True)
    try:
        code = subprocess.run(list(map(str, command))).returncode
    except OSError as error:
        raise BenchError(f"cannot start `{show(command)}`: {error}") from error
    if code != 0:
        raise BenchError(f"`{show(command)}` failed ({ended(code)})")


def read(command: Words) -> str:
    """Runs a command and returns its standard output."""
    line = show(command)
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    except OSError as error:
        raise BenchError(f"cannot start `{line}`: {error}") from error
    except UnicodeDecodeError as error:
        raise BenchError(f"`{line}` printed invalid UTF-8: {error}") from error
    if done.returncode != 0:
        raise BenchError(f"`{line}` failed ({ended(done.returncode)}): {done.stderr.strip()}")
    return done.stdout


def last_json(printed: str) -> tuple[str, dict[str, Any]]:
    """The last line of JSON, as text and parsed: libraries print messages of their own around it."""
    lines = [line.strip() for line in printed.splitlines() if line.lstrip().startswith("{")]
    if not lines:
        raise BenchError("printed no line of JSON")
    return lines[-1], json_object(lines[-1])


def json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BenchError(f"printed {text}: {error}") from error
    if not isinstance(value, dict):
        raise BenchError(f"printed {text}: not an object")
    return value


def number(found: dict[str, Any], key: str) -> float:
    """A number that must be in a result."""
    value = found.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BenchError(f"no number {key!r} in {json.dumps(found)}")
    return value


def append(path: Path, text: str) -> None:
    """Appends in one write, so that an interrupted bench leaves whole lines."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0) as file:
            file.write(text.encode())
    except OSError as error:
        raise BenchError(f"{path} cannot be written: {error}") from error


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} cannot be read: {error}") from error


def entry(main: Callable[[], None]) -> None:
    """Runs a script. Context managers end its child processes when it is interrupted or terminated."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        main()
    except (BenchError, OSError) as error:
        sys.stdout.flush()
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
