"""
The operator's commands: `balancebeam status` and its like.

They start quickly, for nothing here is imported but the standard library.
"""
