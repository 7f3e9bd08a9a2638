"""What every service does the same way: settings, logs, metrics, probes, signals, shutdown."""
