"""`python -m ingestor`, the same as the command `ingestor`."""

import sys

from ingestor.cli import main

sys.exit(main())
