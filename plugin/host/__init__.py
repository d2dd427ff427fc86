"""What the plugin shares with its host: the app, its options, connections and clocks."""
