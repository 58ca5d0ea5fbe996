"""
Command line client of the admin API: `balancebeam status` and the other operator commands.

It imports only the standard library, so that a command starts without loading Twisted.
"""
