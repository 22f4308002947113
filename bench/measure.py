"""Runs commands one after another and prints what the kernel counted for them: one JSON document in, one out.

Node cannot ask wait4 for a child's resources. The time of each command runs from its start to its end, so the start of
this program is not in it. Memory is the largest resident set of any one process; "written" is what the commands gave to
the page cache of a disk (the kernel's write_bytes), children included.
"""

import json
import os
import signal
import subprocess
import sys
import time

spec = json.load(sys.stdin)
current = None


def stop(_signal, _frame):
    """The limit has passed, or the benchmark is ending: so does what runs below."""
    if current is not None:
        os.killpg(current.pid, signal.SIGKILL)


signal.signal(signal.SIGALRM, stop)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
signal.alarm(spec["limit"])


def count(path):
    """How many entries a folder of /proc has; 0 when the process is gone."""
    try:
        return len(os.listdir(path))
    except OSError:
        return 0


def wait(pid, sample):
    """Waits for a child. With `sample` its open files are counted every few milliseconds; the highest number is kept."""
    files = 0
    if not sample:
        return os.wait4(pid, 0) + (files,)
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return done, status, usage, files
        files = max(files, count(f"/proc/{pid}/fd"))
        time.sleep(0.005)


steps = []
with open(spec["log"], "ab") as log:
    for step in spec["steps"]:
        started = time.perf_counter()
        current = subprocess.Popen(
            step["argv"],
            cwd=step.get("cwd"),
            env={**os.environ, **step.get("env", {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        _, status, usage, files = wait(current.pid, spec.get("sample", False))
        seconds = time.perf_counter() - started
        current = None
        code = os.waitstatus_to_exitcode(status)
        steps.append(
            {
                "code": code,
                "seconds": seconds,
                "cpuSeconds": usage.ru_utime + usage.ru_stime,
                "memory": usage.ru_maxrss * 1024,
                "written": usage.ru_oublock * 512,
                "files": files,
            }
        )
        if code != 0:
            break
json.dump(steps, sys.stdout)
