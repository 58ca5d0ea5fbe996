"""Admission control: access lists and rate limits that a request passes before dispatch."""
