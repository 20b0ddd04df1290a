"""Fine-tunes a DistilBERT-architecture classifier with sparse attention, and measures it."""
