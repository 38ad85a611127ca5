"""Two checkouts of nst give the same bytes for the same requests."""
