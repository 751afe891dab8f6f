"""Start the server and its services: ``python launcher.py --help``."""

import sys

if __name__ == "__main__":
    try:
        from media_server.launcher import main
    except ModuleNotFoundError as error:
        sys.exit(
            f"launcher: the Python package {error.name!r} is missing: say `make install`, "
            "then `.venv/bin/python launcher.py`"
        )
    sys.exit(main())
