"""`crisp inspect`: how a fine-tuned classifier attends, layer by layer, and whether it notices
edits that turn a text's label."""
