"""Where turns become tokens, masks and dense rewards: episodes played by a model."""
