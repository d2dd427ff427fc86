"""What the plugin does for one running worker."""
