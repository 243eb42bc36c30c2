"""CPU as a verl platform, and the changes to verl and torchvision that it needs."""
