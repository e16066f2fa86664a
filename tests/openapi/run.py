"""Fuzzes the web door by its own description, with schemathesis.

usage: run.py WORK_DIR ADDRESS

Makes a virtual environment below WORK_DIR, installs the pinned package of requirements.txt there, and runs it twice:

    strangers   names come from the description alone, so that most things do not exist, and those that were made are
                used, changed and deleted again
    residents   a topic, a stream, a group and a subscription are there, and every call is about them

Prints one last line: `PASSED`, or `SKIPPED` with the reason when the package cannot be had. Ends with another code
than 0 when a check fails. The seed is fixed, so that the same door is asked the same.
"""

import json
import os
import pathlib
import subprocess
import sys
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
sys.path.insert(0, str(HERE.parent / "support"))
sys.dont_write_bytecode = True

from packages import environment  # noqa: E402

SEED = "20261126"
# Longest time of one of the runs, in seconds.
RUN_MAX = 120


def ask(base, method, path, body, content_type="application/json"):
    headers = {"content-type": content_type}
    request = urllib.request.Request(base + path, method=method, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as reply:
        assert reply.status in (200, 201, 204), (path, reply.status)


def settle_residents(base):
    """Makes what the second run is about."""

    def say(method, path, value):
        ask(base, method, path, json.dumps(value).encode())

    say("POST", "/v1/topics", {"topic": "resident", "partitions": 2, "config": {"durability": "os"}})
    records = [{"key": f"k{n}", "value": {"n": n}, "headers": [{"key": "h", "value": "x"}]} for n in range(20)]
    records += [{"value": "/wA=", "value_type": "base64"}, {"key": "gone", "value": None}]
    say("POST", "/v1/topics/resident/records?partition=0", records)
    say("PUT", "/v1/groups/resident/offsets", {"offsets": [{"topic": "resident", "partition": 0, "offset": 3}]})
    say("POST", "/v1/subscriptions", {"subscription": "resident", "topics": ["resident"]})
    ask(base, "PUT", "/v1/stream/resident-stream", b'[{"n": 1}, {"n": 2}]')


def fuzz(programs, base, name):
    """One run. Its findings go to the output."""
    command = [programs / "st", "--config-file", HERE / f"{name}.toml", "run", f"{base}/openapi.json"]
    command += ["--url", base, "--seed", SEED, "--no-color"]
    variables = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(command, env=variables, timeout=RUN_MAX).returncode
    except subprocess.TimeoutExpired:
        print(f"{name} did not end within {RUN_MAX} s")
        return 1


def main():
    work, address = pathlib.Path(sys.argv[1]), sys.argv[2]
    work.mkdir(parents=True, exist_ok=True)
    programs = environment(work.resolve(), REQUIREMENTS).parent
    os.chdir(work)
    base = f"http://{address}"
    sys.stdout.flush()
    codes = [fuzz(programs, base, "strangers")]
    settle_residents(base)
    codes += [fuzz(programs, base, "residents")]
    if any(codes):
        sys.exit(1)
    print("PASSED")


if __name__ == "__main__":
    main()
