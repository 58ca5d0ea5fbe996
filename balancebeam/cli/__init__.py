"""
The operator commands: `balancebeam status` and others.

Only the standard library is imported here, so that a command starts quickly.
"""
