"""Click-through models: fields, backbones, and the door through which knowledge joins them."""
