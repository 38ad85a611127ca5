"""What a job is: admission, lifecycle, events, and the threads that drive the engine. Knows no gRPC."""
