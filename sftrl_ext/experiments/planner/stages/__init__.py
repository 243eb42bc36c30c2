"""Plans of single stages: SFT, RL and evaluation."""
