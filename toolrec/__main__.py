"""`python -m toolrec …` is the same as `toolrec …`."""

from toolrec.cli import main

if __name__ == "__main__":
    main()
