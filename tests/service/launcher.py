"""Starts the program over and over by fork, its modules already loaded: fifty starts in seconds.

python -m tests.service.launcher CONFIG LOG      each line on stdin starts `ingestor --config CONFIG run`
                                                 and prints the process's number, then its wait status
"""

import os
import sys


def main() -> None:
    """Serve until stdin ends."""
    config, log = sys.argv[1:]
    # Loaded before the forks; nothing of it starts a thread or opens a connection.
    import psycopg  # noqa: F401

    import ingestor.cli.run
    import ingestor.providers.agile.mail
    import ingestor.service.daemon  # noqa: F401
    from ingestor.cli import main as program

    print("loaded", flush=True)
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            for descriptor in (1, 2):
                os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), descriptor)
            os._exit(program(["--config", config, "run"]))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(status, flush=True)


if __name__ == "__main__":
    main()
