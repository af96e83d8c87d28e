"""What only a GPU can show: facts of the machine, a profile of a step, and design probes; see scripts/gpu."""
