"""Budget planner: memory, disk, tokens, FLOPs and hours of a recipe on named hardware."""
