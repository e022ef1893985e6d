"""``python -m contraflow.cli``, where no script is installed or several Pythons are."""

from contraflow.cli import main

if __name__ == "__main__":
    main()
