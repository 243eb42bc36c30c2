"""Recipes: their schema, arms and files, and the settings a recipe turns into verl's."""
