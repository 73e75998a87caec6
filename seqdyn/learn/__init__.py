"""Training one run: what it is, its network, its updates, and the check of its gradient."""
