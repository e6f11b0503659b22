"""Many runs: lists of them, a queue for one machine, Snakemake's grid for a cluster. Stands on `mmvm`."""
