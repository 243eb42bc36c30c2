"""A finished run as a folder whose parts are repositories of the Hugging Face hub."""
