"""``python -m contraflow.cli``, where no script is installed or several Pythons are."""

import sys

from contraflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
