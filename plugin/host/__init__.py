"""The plugin and its host: the app's options, connections, clocks, notifications, warnings."""
