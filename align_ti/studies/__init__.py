"""The paper's measurements: tables, figures, costs. Training does not depend on them."""
