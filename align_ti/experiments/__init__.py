"""The paper's comparisons: which students to train, how to train them once for each seed, and what came out."""
