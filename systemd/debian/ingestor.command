#!/usr/bin/python3 -I
"""The command `ingestor` as the Debian package installs it."""

import sys

sys.path.insert(0, "/usr/lib/ingestor")

from ingestor.cli import main

sys.exit(main())
