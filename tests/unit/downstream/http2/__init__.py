"""HTTP/2 connections of clients."""
