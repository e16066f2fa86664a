"""Runs the cases of the Autobahn test suite against a WebSocket that gives back what comes.

usage: run.py WORK_DIR URL

Makes a virtual environment below WORK_DIR, installs the pinned package of requirements.txt there (a runner of the
suite's own case files that needs no Python 2) and runs cases.py. Prints one last line: the results as JSON, or
`SKIPPED` with the reason when the package cannot be had.
"""

import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
sys.path.insert(0, str(HERE.parent / "support"))
sys.dont_write_bytecode = True

from packages import environment  # noqa: E402


def main():
    work, url = pathlib.Path(sys.argv[1]), sys.argv[2]
    work.mkdir(parents=True, exist_ok=True)
    python = environment(work.resolve(), REQUIREMENTS)
    sys.stdout.flush()
    sys.exit(subprocess.run([python, HERE / "cases.py", url], timeout=240).returncode)


if __name__ == "__main__":
    main()
