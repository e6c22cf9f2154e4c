"""`python -m mlipdb.cli` is the command line."""

from mlipdb.cli.app import main

main()
