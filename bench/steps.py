"""Runs a command so many times, one at a time or several at once, and prints the times as JSON: what an allocation runs.

python -m bench.steps NUMBER AT_ONCE COMMAND …
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor


def main(arguments: Sequence[str]) -> None:
    number, at_once, command = int(arguments[0]), int(arguments[1]), list(arguments[2:])

    def run(_: int) -> float:
        start = time.perf_counter()
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    start = time.perf_counter()
    if at_once == 1:
        print(json.dumps([run(count) for count in range(number)]))
    else:
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(run, range(number)))
        print(json.dumps([time.perf_counter() - start]))


if __name__ == "__main__":
    main(sys.argv[1:])
