"""Layer 5, the HTTP front door: the comparison API and the OpenAI-compatible endpoint. Nothing is here yet."""
