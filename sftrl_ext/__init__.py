"""Post-train a model by SFT and by RL on the same task, and see which one generalizes."""

__version__ = "0.1.0"
