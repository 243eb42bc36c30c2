"""The run folder: layout, state, recipe, metrics, token counts, evaluation records and episodes.

This room alone writes and reads these files; `experiments` fills them, and `reports` draws from them.
"""
