"""The objective: losses, their targets, and the criterion that they make up."""
