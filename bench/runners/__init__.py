"""One module for each program: runs it, unmodified, on a `Task`, in a process of its own."""
