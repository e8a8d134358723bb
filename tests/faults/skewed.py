"""Runs a program of Python's in this process with a clock that is wrong.

    python skewed.py SECONDS python -m relay --mode router ...

It stands before a command (`Site.inside`). Only time.time is wrong, which is the only wall clock
that Relay asks (a test beside this file holds it to that); monotonic clocks are as they were.
"""

import runpy
import sys
import time


def main() -> None:
    _, seconds, _, option, module, *arguments = sys.argv
    if option != "-m":
        raise SystemExit("skewed.py SECONDS PYTHON -m MODULE [ARGUMENT...]")
    skew, right = float(seconds), time.time
    time.time = lambda: right() + skew
    sys.argv = [module, *arguments]
    sys.path[0] = ""  # as of -m: the working folder in place of this file's
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
