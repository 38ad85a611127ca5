"""The contract of nst, generated from proto/nst."""
