"""Processes of their own that begin with `pgmrl.local` imported: forked from one that has imported it once.

A new interpreter takes a second to import pgmrl; a fork takes a millisecond, and is otherwise the same: a process with
its own id, standard input and output, which ends as an interpreter does, with its `atexit` functions.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Forked", "Forks"]

_PARENT: Final = """
import json, os, socket, sys
from pathlib import Path
from pgmrl import local

requests = socket.socket(fileno=int(sys.argv[1]))
code = None
while code is None:
    message, descriptors, _, _ = socket.recv_fds(requests, 65_536, 2)
    if not message:
        sys.exit()
    request = json.loads(message)
    if "wait" in request:
        reply = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
    elif (reply := os.fork()) == 0:
        code, data = request["code"], Path(request["data"])
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)
    if code is None:
        requests.send(json.dumps(reply).encode())
requests.close()
exec(code)
"""


class Forks:
    """The process from which others are forked; `close` ends it."""

    def __init__(self, folder: Path) -> None:
        self._requests, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-c", _PARENT, str(other.fileno())]
        self._process = subprocess.Popen(command, cwd=folder, pass_fds=[other.fileno()])  # noqa: S603 - our own code
        other.close()

    def start(self, code: str, data: Path) -> Forked:
        """A process that runs this code, in which `data` is a Path and `local` the module."""
        stdin_read, stdin_write = os.pipe()
        stdout_read, stdout_write = os.pipe()
        pid = self._ask({"code": code, "data": str(data)}, [stdin_read, stdout_write])
        os.close(stdin_read)
        os.close(stdout_write)
        return Forked(self, pid, os.fdopen(stdin_write, "w"), os.fdopen(stdout_read))

    def wait(self, pid: int) -> int:
        """Its exit code, at its end; negative where a signal ended it."""
        return self._ask({"wait": pid}, [])

    def close(self) -> None:
        """End the process; those that it has started go on."""
        self._requests.close()
        assert self._process.wait() == 0

    def _ask(self, request: dict[str, Any], descriptors: list[int]) -> int:
        socket.send_fds(self._requests, [json.dumps(request).encode()], descriptors)
        reply: int = json.loads(self._requests.recv(1024))
        return reply


@dataclass(frozen=True, slots=True)
class Forked:
    """A process that `Forks` has started.

    Attributes:
        forks: what started it.
        pid: its process id.
        stdin: its standard input.
        stdout: its standard output.

    """

    forks: Forks
    pid: int
    stdin: TextIO
    stdout: TextIO

    def output(self) -> str:
        """What it writes until its end, which has to be a good one; its standard input ends before."""
        self.stdin.close()
        with self.stdout:
            text = self.stdout.read()
        assert self.forks.wait(self.pid) == 0
        return text.strip()

    def first_line(self) -> str:
        """The first line of a process that goes on."""
        return self.stdout.readline().strip()

    def kill(self) -> None:
        """End it as the system does when memory runs out: it cleans up nothing."""
        os.kill(self.pid, signal.SIGKILL)
        assert self.forks.wait(self.pid) == -signal.SIGKILL
        self.stdin.close()
        self.stdout.close()
