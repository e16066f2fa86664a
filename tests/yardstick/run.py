"""Runs the cases of the Autobahn test suite against a WebSocket that gives back what comes.

usage: run.py WORK_DIR URL

Makes a virtual environment below WORK_DIR, installs the pinned package of requirements.txt there (a runner of the
suite's own case files that needs no Python 2) and runs cases.py. Prints one last line: the results as JSON, or
`SKIPPED` with the reason when the package cannot be had.
"""

import hashlib
import pathlib
import shutil
import subprocess
import sys
import venv

HERE = pathlib.Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"


def skip(reason):
    print(f"SKIPPED: {reason}")
    sys.exit(0)


def environment(work):
    """Returns the interpreter of an environment that has the pinned package, and makes it when needed."""
    pins = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = work / f"venv-{pins}"
    python = folder / "bin" / "python"
    done = folder / "installed"
    if done.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    try:
        venv.create(folder, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        skip(f"no virtual environment: {error}")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    install += ["--only-binary", ":all:", "--requirement", REQUIREMENTS]
    try:
        result = subprocess.run(install, capture_output=True, text=True, timeout=240)
    except subprocess.TimeoutExpired:
        skip("pip install did not end within 240 s")
    if result.returncode != 0:
        skip("pip install failed: " + (result.stderr.strip().splitlines() or ["no message"])[-1])
    done.touch()
    return python


def main():
    work, url = pathlib.Path(sys.argv[1]), sys.argv[2]
    work.mkdir(parents=True, exist_ok=True)
    python = environment(work.resolve())
    sys.stdout.flush()
    sys.exit(subprocess.run([python, HERE / "cases.py", url], timeout=240).returncode)


if __name__ == "__main__":
    main()
