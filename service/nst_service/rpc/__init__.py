"""The gRPC service: it translates between the contract and jobs, and decides nothing."""
