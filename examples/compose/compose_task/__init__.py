"""The task compose for sftrl-ext: secret functions, learnt one by one and then composed."""
