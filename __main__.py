"""`python -m clew` is the command `clew`."""

from .cli import main

if __name__ == "__main__":
    main()
