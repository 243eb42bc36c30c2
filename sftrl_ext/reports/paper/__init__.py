"""The figures of arXiv 2501.17161 in the paper's form, from the stored metrics of one or several runs."""
