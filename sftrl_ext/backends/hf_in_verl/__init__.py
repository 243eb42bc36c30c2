"""The transformers engine as the verl rollout `rollout.name=hf`, and weight transfer to it."""
