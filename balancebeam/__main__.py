"""`python -m balancebeam`."""

from balancebeam.cli.main import main

main()
