"""From images to embeddings: the embedder, folders, feature files, thresholds."""
