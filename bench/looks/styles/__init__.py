"""Style pictures that programs paint, each in another technique. Nothing is copied from an existing picture."""
