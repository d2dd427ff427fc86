"""The schema, one file a step, found and run by Chancy's migrator."""
