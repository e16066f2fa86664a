"""Talks to a broker with stubs generated from the .proto files, as a user without the SDK would.

usage: run.py WORK_DIR PROTO_DIR ADDRESS

Makes a virtual environment below WORK_DIR, installs the pinned packages of requirements.txt, generates the
stubs there and runs checks.py. Prints one last line: `PASSED`, or `SKIPPED` with the reason when the
packages cannot be had. Ends with another code than 0 when a check fails.
"""

import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
sys.path.insert(0, str(HERE.parent / "support"))
sys.dont_write_bytecode = True

from packages import environment  # noqa: E402


def generate(python, work, protos):
    """Generates the stubs of every service, anew each time: the .proto files are what is under test."""
    out = work / "stubs"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    files = sorted((protos / "riverrun" / "v1").glob("*.proto"))
    assert files, f"no .proto files below {protos}"
    command = [python, "-m", "grpc_tools.protoc", f"--proto_path={protos}"]
    command += [f"--python_out={out}", f"--grpc_python_out={out}", *files]
    subprocess.run(command, check=True)
    return out


def main():
    work, protos, address = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    work.mkdir(parents=True, exist_ok=True)
    python = environment(work.resolve(), REQUIREMENTS)
    stubs = generate(python, work.resolve(), protos.resolve())
    variables = {**os.environ, "PYTHONPATH": str(stubs), "GRPC_VERBOSITY": "ERROR"}
    result = subprocess.run([python, HERE / "checks.py", address], env=variables)
    sys.exit(result.returncode)


if __name__ == "__main__":
    main()
