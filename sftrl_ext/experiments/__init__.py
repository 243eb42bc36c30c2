"""Recipe to plan of stages, run, resume, evaluate."""
