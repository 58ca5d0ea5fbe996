"""`python -m balancebeam`."""

from balancebeam.script import main

main()
