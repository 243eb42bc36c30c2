"""Build, import, check and describe the parquet files everything trains and evaluates on."""
