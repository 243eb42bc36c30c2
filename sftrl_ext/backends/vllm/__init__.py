"""vLLM for evaluation, and its CPU build as a rollout of verl."""
