"""The commands of `sluice`, one file each. Layer `sluice`: they may import everything below."""
