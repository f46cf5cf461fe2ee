"""Plain formulas in unusual forms: compiled, as modules, with other numbers, beside much noise."""
