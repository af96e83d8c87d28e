"""The candidates of TPA: drawn, laid out, and run through both models."""
