from tests.assets.fixtures import environment, fresh_state, lasting, memory, no_warehouse, workshop

__all__ = ["environment", "fresh_state", "lasting", "memory", "no_warehouse", "workshop"]
