"""Processes that are asked in lines and answer in lines of JSON, and how busy the machine is beside them."""

import ctypes
import json
import os
import signal
import subprocess
import threading
import time

# A step that takes longer is stuck: the slowest takes a minute on a busy machine.
MAX_ANSWER_SECONDS = 600
STOP_SECONDS = 20
PR_SET_PDEATHSIG = 1
TICKS = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """What went wrong, in words for the person at the terminal."""


def die_with_parent():
    """Even a driver that is killed leaves no process behind. Linux only, like /proc."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """A running process. Use it in a `with`: it ends with it."""

    def __init__(self, name, command, log):
        self.name, self.log = name, log
        try:
            # The log belongs to the child from here on.
            with open(log, "w", encoding="utf-8") as errors:
                self.process = subprocess.Popen(
                    [str(part) for part in command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    preexec_fn=die_with_parent,
                )
        except OSError as error:
            raise Failure(f"start {name}: {error}") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Its input ends, so it does."""
        try:
            self.process.stdin.close()
            self.process.wait(STOP_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def read(self):
        """The next answer."""
        timer = threading.Timer(MAX_ANSWER_SECONDS, self.process.kill)
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                told = log.read().strip()[-2000:]
            status = self.process.wait()
            raise Failure(f"{self.name} ended with status {status}: {told or 'it said nothing'}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failure(f"{self.name}: {answer['error']}")
        return answer

    def ask(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # `read` tells why it is gone.
        return self.read()


def busy_seconds():
    """Of all processors, since the machine started; time that the host took away counts, too."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def used_seconds(process):
    """Of one process."""
    with open(f"/proc/{process.pid}/stat", encoding="utf-8", errors="replace") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Others:
    """How many processors others than `process` use meanwhile."""

    def __init__(self, process):
        self.process = process
        self.start = (time.perf_counter(), busy_seconds(), used_seconds(process))

    def stop(self):
        wall, busy, used = (time.perf_counter(), busy_seconds(), used_seconds(self.process))
        seconds = wall - self.start[0]
        return max(0.0, (busy - self.start[1]) - (used - self.start[2])) / max(seconds, 1e-9)
