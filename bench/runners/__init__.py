"""One module for each program, which runs it unmodified on a `Task` in a process of its own."""
