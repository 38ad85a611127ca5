"""Translation between the contract and jobs, and nothing else."""
