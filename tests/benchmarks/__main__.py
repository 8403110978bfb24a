"""Runs every benchmark of this folder, or those named on the command line: `make bench`.

Each module has a `main()` that prints its figures as ratios against a limit and a peer measured in the same
run. Absolute figures depend on the machine; no test asserts them.
"""

import importlib
import os
import pkgutil
import platform
import sys
import time
from pathlib import Path


def main(names: list[str]) -> None:
    """Run the benchmarks called `names`, or all of them in alphabetical order."""
    folder = Path(__file__).parent
    known = [module.name for module in pkgutil.iter_modules([str(folder)]) if not module.name.startswith("_")]
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.exit(f"no benchmark called {', '.join(unknown)}; there are: {', '.join(known)}")
    print(f"Python {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores")
    for name in names or known:
        print(f"\n== {name} ==", flush=True)
        began = time.perf_counter()
        importlib.import_module(f"tests.benchmarks.{name}").main()
        print(f"({time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
