# SPDX-License-Identifier: MIT
"""Runs an app's template safely: in a process of its own, with limits, and without root's privileges.

Jinja's sandbox keeps a template from reaching Python's insides, not from running for ever or filling the memory, and
a signal handler waits until C code returns. So: a child, which the kernel ends.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable

_SECONDS = 2
_LONGEST = 16 * 1024**2  # bytes of text
_BYTES = 1024**3  # of address space, the interpreter's own included
_NOBODY = 65534


class Failed(Exception):
    """The function failed, or was ended; the text says why."""


def run(function: Callable[[], str]) -> bytes:
    """The text, in UTF-8, that `function` returns in the child; raises `Failed`."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(function, writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pipe.read(_LONGEST + 1)
    _, status = os.waitpid(child, 0)
    if len(answer) > _LONGEST:
        raise Failed(f"makes more than {_LONGEST // 1024**2} MiB")
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        raise Failed(f"takes longer than {_SECONDS} s, or too much memory (ended by {name})")
    if os.WEXITSTATUS(status):
        raise Failed(answer.decode(errors="replace") or "failed")
    return answer


def _child(function: Callable[[], str], writer: int) -> None:
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
        signal.alarm(15 * _SECONDS)  # on a machine that is busy, too
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        answer = function().encode()
        code = 0
    except BaseException as error:
        answer = (str(error) or type(error).__name__).encode(errors="replace")
    try:
        with open(writer, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(code)
