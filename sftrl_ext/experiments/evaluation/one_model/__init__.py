"""`sftrl eval`: one model, in a folder or behind an endpoint, on parquet files."""
