"""The web page: chat with models side by side, with their attention maps."""
