"""Tests of what is deployed: the compose file, the image, its health check. None of them needs Docker."""
