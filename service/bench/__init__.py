"""`crisp bench --http`: what HTTP costs on top of the engine."""
