"""HTTP/2 connections from clients."""
