"""The life of a job, from the admission of its request to its end. This package does not import gRPC."""
