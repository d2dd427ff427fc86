"""Run the plugin in a worker: its loops, migrations, maintenance of the tables, retention of the log."""
