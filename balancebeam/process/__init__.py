"""The operating-system process: options, signals, hot restart, systemd."""
