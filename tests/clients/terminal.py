"""A person at a terminal: starts a conversation, asks, clears, leaves.

Usage: terminal.py BINARY    (OLLAMA_HOST names the server; the model `m` runs on the scripted engine)
"""

import os
import pty
import select
import sys
import time

MAX_WAIT_S = 60


class Terminal:
    """Both ends of a pseudo-terminal: a program at one, a person's eyes and hands at the other."""

    def __init__(self, *command: str) -> None:
        self.child, self.file = pty.fork()
        if self.child == 0:
            os.execv(command[0], command)
        self.unread = b""

    def type(self, text: str) -> None:
        os.write(self.file, text.encode())

    def read_to(self, wanted: bytes) -> None:
        """Reads up to and with the wanted bytes; what comes behind them is left for later."""
        end = time.monotonic() + MAX_WAIT_S
        while wanted not in self.unread:
            ready, _, _ = select.select([self.file], [], [], max(0, end - time.monotonic()))
            assert ready, f"{wanted!r} did not come: {self.unread!r}"
            self.unread += os.read(self.file, 4096)
        self.unread = self.unread.split(wanted, 1)[1]

    def exit_code(self) -> int:
        _, status = os.waitpid(self.child, 0)
        return os.waitstatus_to_exitcode(status)


def main(binary: str) -> None:
    # What is typed here is no history of whoever runs the tests.
    os.environ["OLLAMA_NOHISTORY"] = "1"
    terminal = Terminal(binary, "run", "m")
    terminal.read_to(b">>> ")
    terminal.type("Please [[say one two three]]\r")
    terminal.read_to(b"one two three\r\n")
    terminal.read_to(b">>> ")
    terminal.type('"""first\r')
    terminal.read_to(b"... ")
    terminal.type('[[say four five]]"""\r')
    terminal.read_to(b"four five\r\n")
    terminal.read_to(b">>> ")
    terminal.type("/clear\r")
    terminal.read_to(b"Cleared session context")
    terminal.read_to(b">>> ")
    terminal.type("/nonsense\r")
    terminal.read_to(b"Unknown command '/nonsense'")
    terminal.read_to(b">>> ")
    terminal.type("/bye\r")
    assert terminal.exit_code() == 0


main(sys.argv[1])
