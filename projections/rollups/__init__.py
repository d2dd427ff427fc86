"""Points in the database: rows, the numbers of names, and the shared cache."""
