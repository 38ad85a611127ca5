"""The entry points of `nst-client` and `nst-server`, which decide what a signal does before slow imports begin."""
