"""Points in the database: rollup rows, the ids of their names, and the delta ring."""
