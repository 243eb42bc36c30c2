"""Turn-level credit, the trainers that use it, and the data sets of SFT and RL."""
