"""`python -m gmprt`."""

import sys

from gmprt._cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
