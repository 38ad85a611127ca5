"""What operators see of a server: its log and its metrics. Only the composition root imports this package."""
