"""A process of its own that delays a TCP connection: prints its port, and runs until its stdin ends."""

import sys

from tests.servers.fault_proxy import FaultProxy

if __name__ == "__main__":
    with FaultProxy(int(sys.argv[1])).running() as proxy:
        proxy.plan.delay = float(sys.argv[2])
        print(proxy.port, flush=True)
        sys.stdin.read()
