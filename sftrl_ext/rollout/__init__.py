"""Episodes played by a model: turns as tokens, masks and dense rewards."""
