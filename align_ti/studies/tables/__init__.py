"""The paper's tables: train and evaluate students, and tabulate the results."""
