"""What the Python programs of the tests share: an environment with pinned packages, or the word that it cannot be had."""

import hashlib
import shutil
import subprocess
import sys
import venv


def skip(reason):
    print(f"SKIPPED: {reason}")
    sys.exit(0)


def environment(work, requirements):
    """Returns the interpreter of an environment below `work` that has the packages of `requirements`, and makes it when needed."""
    pins = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:16]
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
    install += ["--only-binary", ":all:", "--requirement", requirements]
    try:
        result = subprocess.run(install, capture_output=True, text=True, timeout=240)
    except subprocess.TimeoutExpired:
        skip("pip install did not end within 240 s")
    if result.returncode != 0:
        skip("pip install failed: " + (result.stderr.strip().splitlines() or ["no message"])[-1])
    done.touch()
    return python
