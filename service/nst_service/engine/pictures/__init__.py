"""Picture files: formats, decoding, encoding and colours."""
