"""The server of nst: a contract in `rpc`, jobs in `jobs`, and an engine that knows only tensors in `engine`."""
