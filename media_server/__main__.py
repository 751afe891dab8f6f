"""``python -m media_server`` is ``vocal-node``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
