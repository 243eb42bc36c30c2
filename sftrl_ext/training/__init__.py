"""Turn-level credit, the trainer that uses it, and the data set of supervised stages."""
