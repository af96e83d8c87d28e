"""The paper's tables: students trained, evaluated and tabulated."""
