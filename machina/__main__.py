"""`python -m machina`: the same as `machina-server`."""

from machina.cli import main

if __name__ == "__main__":
    main()
