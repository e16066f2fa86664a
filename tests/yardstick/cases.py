"""Runs the cases and prints what became of each as one line of JSON: [[id, behavior, close, why], ...]."""

import asyncio
import json
import os
import sys

from kosoku import FailureError, run_fuzzingclient

# Left out: messages of more than the 256 KiB that a socket takes, and compression, which it never agrees to.
LEFT_OUT = ["9.1.3", "9.1.4", "9.1.5", "9.1.6", "9.2.3", "9.2.4", "9.2.5", "9.2.6"]
LEFT_OUT += ["9.3.*", "9.4.*", "9.5.*", "9.6.*", "12.*", "13.*"]


async def main():
    try:
        results = await run_fuzzingclient(sys.argv[1], exclude_cases=LEFT_OUT, concurrency=8)
    except FailureError as failure:
        results = failure.results
    told = [[one.case_id, one.behavior.value, one.behavior_close.value, why(one)] for one in results]
    print(json.dumps(told), flush=True)
    # What the runner's libraries do when the interpreter ends is no result of a case.
    os._exit(0)


def why(one):
    return f"{one.result} | {one.result_close} | received {str(one.received)[:200]} | close {one.remote_close_code}"


asyncio.run(main())
