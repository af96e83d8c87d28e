"""Where models look: relevance of layers, maps."""
