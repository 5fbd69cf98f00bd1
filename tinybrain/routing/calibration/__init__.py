"""How often the small model is wrong where it doubts so much: fitted, kept, bounded, measured."""
