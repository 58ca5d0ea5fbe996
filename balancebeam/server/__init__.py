"""The service tree: frontends, pools and listeners, and how a reload changes them."""
