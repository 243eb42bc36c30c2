"""Report pages, their tables and texts."""
