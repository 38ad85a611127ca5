"""Speed and memory of this checkout against another one, in pairs."""
