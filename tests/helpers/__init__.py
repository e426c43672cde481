"""Oracles, targets and adapters that several tests share."""
