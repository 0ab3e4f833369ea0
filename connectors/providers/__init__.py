"""Providers of LLM answers, one a file, behind one protocol (`base.Provider`), registered in `registry`."""
