"""Schema migrations, one module a version, run by Chancy's migrator."""
