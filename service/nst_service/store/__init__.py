"""Durable jobs: what must survive the process. Knows neither gRPC nor torch."""
