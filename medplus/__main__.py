"""`python -m medplus` is the command line."""

from medplus.cli import main

main()
