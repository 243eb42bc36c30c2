"""What a machine without a GPU needs: a verl platform and two rollout engines."""
