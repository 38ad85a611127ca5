"""VGG-19: its plan, its weights, and its convolutions on CPUs and GPUs."""
