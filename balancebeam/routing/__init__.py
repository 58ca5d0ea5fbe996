"""Route tables: pure code that maps a request to its route."""
