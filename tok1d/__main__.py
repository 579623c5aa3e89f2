"""`tok1d`, also as `python -m tok1d`: Ctrl-C while the command line itself is still being loaded."""

import sys

from tok1d.interrupt import SAID


def main() -> int:
    """What `tok1d.cli.main` does; returns the exit status."""
    try:
        from tok1d.cli import main as do

        return do()
    except KeyboardInterrupt:
        print(f"tok1d: {SAID}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
